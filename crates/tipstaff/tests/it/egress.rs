//! The way to hosts, from the real sandbox through the real broker to a scripted host: what is granted works with plain
//! tools, what is not is refused in words that help, and nothing leaves any other way.

use crate::world::{Ended, World, run};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tipstaff_testkit::TlsServer;

/// The name of the scripted host.
const HOST: &str = "api.corp.example";

struct Scene {
    world: World,
    repository: PathBuf,
    server: TlsServer,
}

impl Scene {
    /// A host that the operator's configuration leads to, and a repository that trusts its authority.
    fn new() -> Self {
        let world = World::new();
        let server = TlsServer::start(&[HOST, "other.corp.example"], "the answer is here\n").unwrap();
        let hosts = format!(
            "[network.hosts]\n\"{HOST}\" = [\"127.0.0.1\"]\n\"other.corp.example\" = [\"127.0.0.1\"]\n"
        );
        world.write(&world.home().join("config.toml"), &hosts);
        let repository = world.repository("demo");
        world.write(&repository.join("ca.pem"), server.ca_pem());
        world.commit(&repository, "authority");
        Self { world, repository, server }
    }

    fn place(&self) -> String {
        format!("{HOST}:{}", self.server.address().port())
    }

    fn run(&self, hosts: &[&str], script: &str) -> Ended {
        let mut command = self.world.command(self.world.binary());
        command.current_dir(&self.repository).args(["run", "--json", "--timeout", "60s"]);
        for host in hosts {
            command.args(["--allow-host", host]);
        }
        command.args(["--", "sh", "-c", script]);
        run(command)
    }
}

#[test]
fn a_granted_host_answers_plain_tools_and_another_name_in_the_tunnel_does_not_get_through() {
    let scene = Scene::new();
    let (place, port) = (scene.place(), scene.server.address().port());
    let ended = scene.run(&[&place], &format!("curl -sS -m 20 --cacert ca.pem https://{place}/hello?x=1"));
    let ended = ended.expect(0);
    assert!(ended.stderr.contains("the answer is here"), "{ended:#?}");
    assert_eq!(ended.json()["refusals"].as_array().unwrap().len(), 0, "{ended:#?}");
    let requests = scene.server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].server_name.as_deref(), Some(HOST));
    assert!(requests[0].text.starts_with("GET /hello?x=1 HTTP/1.1\r\n"), "{}", requests[0].text);

    // The tunnel is for the granted host, and the hello names another one, or none, or is no TLS.
    let before = scene.server.bytes();
    for (script, rule) in [
        (
            format!(
                "curl -sS -m 20 --cacert ca.pem --connect-to other.corp.example:{port}:{place} https://other.corp.example:{port}/"
            ),
            "tls-name-mismatch",
        ),
        (format!("curl -sS -m 20 -p http://{place}/"), "tls-unreadable"),
    ] {
        let ended = scene.run(&[&place], &script);
        let summary = ended.json();
        assert_eq!(summary["refusals"][0]["rule"], rule, "{script}: {ended:#?}");
        assert!(!ended.stderr.contains("the answer is here"), "{ended:#?}");
    }
    assert_eq!(scene.server.bytes(), before, "not one byte reached the host");
    assert_eq!(scene.server.requests().len(), 1);
}

#[test]
fn a_refusal_names_the_host_and_how_to_grant_it() {
    let scene = Scene::new();
    let place = scene.place();
    let script = format!(
        "curl -sS -m 20 https://{place}/ ; curl -sS -m 20 http://plain.example/ ; curl -sS -m 20 http://plain.example/again ; curl -sS -m 20 https://{HOST}:8443/; \
         curl -sS -m 20 https://10.0.0.1/; true"
    );
    let other = "other.corp.example:8443";
    let ended = scene.run(&[&format!("{HOST}:444"), other], &script).expect(0);
    // The client of plain HTTP is told in the answer's body.
    assert!(ended.stderr.contains("--allow-host plain.example:80"), "{ended:#?}");
    let shown = scene.world.tipstaff_in(&scene.repository, &["runs", "show"]).expect(0).stdout;
    for words in [
        &format!("--allow-host {place}"),
        "--allow-host plain.example:80",
        "plain.example:80 2 times",
        &format!("--allow-host {HOST}:8443"),
        "port-not-granted",
        "host-not-granted",
        "10.0.0.1",
    ] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    assert_eq!(scene.server.connections(), 0);
    // As it says, so it works.
    let script = format!("curl -sS -m 20 --cacert ca.pem https://{place}/");
    let ended = scene.run(&[&place], &script).expect(0);
    assert!(ended.stderr.contains("the answer is here"), "{ended:#?}");
}

#[test]
fn a_class_of_hosts_is_shown_by_its_names() {
    let scene = Scene::new();
    let dry = |class: &str| {
        let args =
            ["run", "--dry-run", "--allow-host", class, "--allow-host", "api.example.com", "--", "true"];
        scene.world.tipstaff_in(&scene.repository, &args)
    };
    for (class, host) in [
        ("registry:npm", "registry.npmjs.org:443"),
        ("registry:crates", "index.crates.io:443"),
        ("registry:pypi", "files.pythonhosted.org:443"),
        ("registry:debian", "deb.debian.org:80"),
    ] {
        let shown = dry(class).expect(0).stdout;
        assert!(shown.contains(host) && shown.contains("api.example.com:443"), "{shown}");
    }
    let wrong = dry("registry:cobol").expect(2);
    assert!(wrong.stderr.contains("registry:npm"), "the classes are named: {wrong:#?}");
    let ended = scene.run(&["registry:npm"], "true").expect(0);
    assert!(ended.stderr.contains("registry.npmjs.org:443"), "{ended:#?}");
    let id = ended.json()["run"].as_str().unwrap().to_owned();
    let shown = scene.world.tipstaff_in(&scene.repository, &["runs", "show", &id]).expect(0).stdout;
    assert!(shown.contains("registry.npmjs.org:443"), "{shown}");
}

#[test]
fn names_are_asked_nowhere_and_no_packet_leaves() {
    let scene = Scene::new();
    // Whoever reached these would reach the machine's own services.
    let udp = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)).unwrap();
    let tcp = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)).unwrap();
    let (udp_port, tcp_port) = (udp.local_addr().unwrap().port(), tcp.local_addr().unwrap().port());
    let heard = Arc::new(AtomicU64::new(0));
    let (by_udp, by_tcp) = (Arc::clone(&heard), Arc::clone(&heard));
    udp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    std::thread::spawn(move || {
        loop {
            if udp.recv(&mut [0; 2000]).is_ok() {
                by_udp.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let _ = stream.read(&mut [0; 100]);
            by_tcp.fetch_add(1, Ordering::SeqCst);
        }
    });
    // An address of this machine, where it has one beside loopback. Nothing is sent to find it out.
    let own = UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()))
        .map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string());
    let script = format!(
        r#"
for name in example.com {HOST} localhost.example printer.local; do getent ahosts $name && echo RESOLVED-$name; done
say() {{ bash -c "exec 3<>/dev/$1/$2/$3 && printf 'aaaaaaaaaaaaaaaa' >&3" 2>/dev/null && echo SENT-$1-$2-$3; }}
for host in 127.0.0.1 {own} 192.0.2.1 1.1.1.1 8.8.8.8; do
  say udp $host {udp_port}; say tcp $host {tcp_port}; say udp $host 53; say tcp $host 53
done
say udp 224.0.0.251 5353; say udp 224.0.0.252 5355; say udp 255.255.255.255 53; say udp ff02::fb 5353
echo INTERFACES-$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \n')
echo ROUTES-$(tail -n +2 /proc/net/route | wc -l)
cat /etc/resolv.conf /etc/nsswitch.conf
"#
    );
    let ended = scene.run(&[&scene.place()], &script).expect(0);
    let said = &ended.stderr;
    assert!(said.contains("INTERFACES-lo\n") && said.contains("ROUTES-0"), "{said}");
    assert!(!said.contains("RESOLVED-"), "{said}");
    // Loopback of the sandbox takes a datagram, and nobody is there to read it.
    let sent: Vec<&str> =
        said.lines().filter(|line| line.contains("SENT-") && !line.contains("SENT-udp-127.0.0.1")).collect();
    assert!(sent.is_empty(), "{sent:?}");
    // Reachable from here, so silence means something.
    let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
    probe.send_to(b"x", ("127.0.0.1", udp_port)).unwrap();
    for _ in 0..200 {
        if heard.load(Ordering::SeqCst) > 0 {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(heard.load(Ordering::SeqCst), 1, "only what this test sent itself");
    assert_eq!(scene.server.connections(), 0);
}
