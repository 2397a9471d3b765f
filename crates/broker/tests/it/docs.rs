//! The README says what the code does.

#[test]
fn the_table_of_bounds_is_the_one_in_the_code() {
    let table = tipstaff_broker::limits::markdown();
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "put this into README.md:\n{table}");
}

#[test]
fn the_defaults_are_the_values_of_the_table() {
    let bounds = tipstaff_broker::Bounds::default();
    let value = |what: &str| {
        tipstaff_broker::limits::TABLE.iter().find(|row| row.what == what).map(|row| row.value).unwrap()
    };
    assert_eq!(value("connections of one run at once"), bounds.connections.to_string());
    assert_eq!(value("time to send the head"), format!("{} s", bounds.head_time.as_secs()));
    assert_eq!(value("time without a byte in either direction"), format!("{} s", bounds.idle_time.as_secs()));
    assert_eq!(value("time of one request"), format!("{} min", bounds.request_time.as_secs() / 60));
    assert_eq!(value("git processes of one run at once"), bounds.git_processes.to_string());
    assert_eq!(
        value("upload-pack request, bytes after decompression"),
        format!("{} MiB", bounds.upload_request_bytes >> 20)
    );
    assert_eq!(value("proxied connections to one run's hosts at once"), bounds.tunnels.to_string());
    assert_eq!(value("time to reach a host"), format!("{} s", bounds.dial_time.as_secs()));
    assert_eq!(value("addresses tried for one name"), bounds.dial_addresses.to_string());
    assert_eq!(
        value("time without a byte in a tunnel"),
        format!("{} min", bounds.tunnel_idle_time.as_secs() / 60)
    );
    assert_eq!(value("distinct refusals kept"), bounds.refusals_kept.to_string());
    assert_eq!(value("push: memory of the object check"), format!("{} GiB", bounds.check_memory >> 30));
    assert_eq!(value("push: time of each check"), format!("{} min", bounds.check_time.as_secs() / 60));
    assert_eq!(
        value("time without a byte while a push is sent or judged"),
        format!("{} min", (bounds.check_time + bounds.idle_time).as_secs() / 60)
    );
    assert_eq!(value("push: bytes looked through for secrets"), format!("{} GiB", bounds.scan_bytes >> 30));
    assert_eq!(value("request head, bytes"), tipstaff_broker::parse::head::LARGEST.to_string());
    assert_eq!(value("header fields"), tipstaff_broker::parse::head::MOST_FIELDS.to_string());
    let commits = tipstaff_broker::attest::MOST_COMMITS.to_string();
    assert_eq!(value("commits of a change that leaves quarantine"), commits);
    assert_eq!(value("push: commands"), tipstaff_broker::parse::receive::MOST_COMMANDS.to_string());
}
