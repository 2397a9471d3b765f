//! Every bound of the broker: its owner, its value, and what happens there. The README shows this very table.

use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// One row of the table of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRow {
    /// What is bounded.
    pub what: &'static str,
    /// Who holds the bound.
    pub owner: &'static str,
    /// The value as text.
    pub value: &'static str,
    /// What happens at the bound.
    pub at_bound: &'static str,
}

const fn row(
    what: &'static str,
    owner: &'static str,
    value: &'static str,
    at_bound: &'static str,
) -> LimitRow {
    LimitRow { what, owner, value, at_bound }
}

/// The table.
pub const TABLE: &[LimitRow] = &[
    row("connections of one run at once", "broker", "64", "shed: 503, `limit-reached`"),
    row("requests on one connection, those for models apart", "broker", "1", "close after the answer"),
    row("request head, bytes", "parse::head", "16384", "400, `request-ambiguous`, close"),
    row("header fields", "parse::head", "64", "400, `request-ambiguous`, close"),
    row("time to send the head", "broker", "10 s", "408, close"),
    row("time without a byte in either direction", "broker", "60 s", "close"),
    row("time without a byte while a push is sent or judged", "broker", "6 min", "close"),
    row("time of one request", "broker", "30 min", "close"),
    row("git processes of one run at once", "broker", "4", "back-pressure: the request waits"),
    row("upload-pack request, bytes after decompression", "broker", "16 MiB", "413, `limit-reached`"),
    row("push: commands", "parse::receive", "4096", "413, `limit-reached`"),
    row("push: bytes before the pack", "parse::receive", "1 MiB", "413, `limit-reached`"),
    row("push: pack bytes", "warrant", "push_bytes", "remote rejected, `push-too-large`"),
    row("push: bytes read away after a refusal", "broker", "push_bytes + 256 MiB", "close"),
    row("push: objects", "warrant", "push_objects", "remote rejected, `push-too-many-objects`"),
    row("push: changed files", "warrant", "push_files", "remote rejected, `push-too-many-files`"),
    row("push: memory of the object check", "git", "2 GiB", "remote rejected, `push-object-check`"),
    row("push: size of one object", "warrant", "file_bytes", "remote rejected, `push-too-large`"),
    row("push: time of each check", "git", "5 min", "remote rejected, `limit-reached`"),
    row("push: bytes looked through for secrets", "broker", "4 GiB", "remote rejected, `limit-reached`"),
    row(
        "push: files that hold what looks like a secret",
        "broker",
        "1000",
        "remote rejected, `secret-in-diff`",
    ),
    row("push: one commit or tag, bytes", "parse::commit", "1 MiB", "remote rejected, `push-too-large`"),
    row(
        "push: one tree, bytes; all trees",
        "broker",
        "16 MiB; 256 MiB",
        "remote rejected, `push-too-many-files`",
    ),
    row(
        "push: entries that trees unfold into",
        "broker",
        "2000000",
        "remote rejected, `push-too-many-files`",
    ),
    row("push: folders within each other", "broker", "256", "remote rejected, `path-dangerous`"),
    row(
        "push: path; one name in it, bytes",
        "parse::names",
        "4095; 255",
        "remote rejected, `path-dangerous`",
    ),
    row("push: target of a link, bytes", "parse::link", "4095", "remote rejected, `symlink-escapes`"),
    row("push: new links", "broker", "10000", "remote rejected, `push-too-many-files`"),
    row("push: chained deltas", "broker", "4095", "remote rejected, `push-object-check`"),
    row(
        "push: list of changes of all commits, bytes",
        "broker",
        "64 MiB",
        "remote rejected, `push-too-many-files`",
    ),
    row("push: commits compared where names collide", "broker", "200", "remote rejected, `path-dangerous`"),
    row("proxied connections to one run's hosts at once", "broker", "32", "503, `limit-reached`"),
    row("time to reach a host", "broker", "15 s", "502"),
    row("addresses tried for one name", "broker", "8", "502"),
    row("TLS client hello, bytes", "parse::client_hello", "16384", "close, `tls-unreadable`"),
    row("time to send the TLS client hello", "broker", "10 s", "close, `tls-unreadable`"),
    row("time without a byte in a tunnel", "broker", "10 min", "close"),
    row("time until a host's answer begins", "broker", "10 min", "504"),
    row("bytes of a host's answer before its body", "broker", "64 KiB", "502"),
    row("bytes sent to hosts in one run", "warrant", "egress_sent_bytes", "cut, `egress-spent`"),
    row("bytes received from hosts in one run", "warrant", "egress_received_bytes", "cut, `egress-spent`"),
    row("requests and tunnels to hosts in one run", "warrant", "egress_requests", "403, `egress-spent`"),
    row(
        "inspected host: bytes read ahead of their turn",
        "broker",
        "16 KiB",
        "back-pressure: nothing more is read",
    ),
    row("inspected host: certificates kept", "broker", "64", "the oldest is made anew"),
    row("inspected host: body of a request that calls tools", "broker", "4 MiB", "403, `limit-reached`"),
    row("inspected host: nesting of such a body", "parse::rpc_body", "128", "400, `request-ambiguous`"),
    row("inspected host: calls of one batch", "parse::rpc_body", "100", "400, `request-ambiguous`"),
    row("model calls of one run at once", "broker", "32", "429, `limit-reached`"),
    row("model request, bytes after decompression", "broker", "32 MiB", "413, `limit-reached`"),
    row("model requests held at once, bytes", "broker", "96 MiB", "back-pressure: the request waits"),
    row("model request: nesting", "parse::model_body", "256", "400, `request-ambiguous`"),
    row("model answer, bytes", "broker", "64 MiB", "cut, `limit-reached`"),
    row("time to reach a provider", "broker", "15 s", "502"),
    row("time until a provider's answer begins", "broker", "10 min", "504"),
    row("time between two pieces of a provider's answer", "broker", "5 min", "cut"),
    row(
        "model calls at one upstream at once, of all runs of a process",
        "broker",
        "64, or `calls` of the upstream",
        "back-pressure: runs take turns",
    ),
    row(
        "model calls that wait for one upstream",
        "broker",
        "256",
        "shed, the longest line first: 529 or 429 with `retry-after`",
    ),
    row(
        "time that a model call waits for its turn at an upstream",
        "broker",
        "60 s",
        "529 or 429 with `retry-after`",
    ),
    row(
        "attempts of one model request, at all upstreams of its route",
        "broker",
        "4",
        "the last answer is passed on",
    ),
    row("time until the last attempt of a model request", "broker", "60 s", "the last answer is passed on"),
    row(
        "pause before another attempt that an upstream may ask for",
        "broker",
        "20 s",
        "its answer is passed on",
    ),
    row(
        "failures of an upstream in a row",
        "broker",
        "5",
        "503 at once for 15 s, longer after each failed probe, at most 2 min",
    ),
    row("time for a reservation of money", "broker", "15 s", "503, nothing is asked"),
    row("time that a call waits for money of others", "broker", "5 min", "429, `limit-reached`"),
    row("time for settlements when a run ends", "broker", "20 s", "left to the ledger"),
    row("distinct refusals kept", "broker", "100", "counted by rule; the count stays exact"),
    row("fetch of a mirror: pack bytes", "git", "8 GiB", "`source-too-large`"),
    row("fetch of a mirror: time", "git", "20 min", "`git-timeout`"),
    row("checkout: files", "broker", "2000000", "`tree-too-large`"),
    row("checkout: bytes", "broker", "20 GiB", "`tree-too-large`"),
    row("diff shown, bytes", "broker", "64 MiB", "`git-output`"),
    row(
        "commits of a change that leaves quarantine",
        "broker",
        "2000",
        "`change-too-long`; it can be taken as a patch",
    ),
    row("commits of such a change, bytes without their trees", "broker", "64 MiB", "`git-output`"),
    row("push upstream: time", "git", "20 min", "ended; the next try looks upstream first"),
    row("look at upstream: time", "git", "60 s", "`publish-unreachable`"),
    row(
        "answers with a credential for one push",
        "broker",
        "4",
        "git is told nothing: `publish-credential-refused`",
    ),
    row("words of upstream that are told, characters", "broker", "400", "cut"),
];

/// The table as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| bound | owner | value | at the bound |\n|---|---|---|---|\n");
    for LimitRow { what, owner, value, at_bound } in TABLE {
        text.push_str(&format!("| {what} | {owner} | {value} | {at_bound} |\n"));
    }
    text
}

/// The bounds that a caller may set, chiefly to lower them in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Time to send a head.
    pub head_time: Duration,
    /// Time without a byte in either direction.
    pub idle_time: Duration,
    /// Time of one request.
    pub request_time: Duration,
    /// git processes at once.
    pub git_processes: usize,
    /// Bytes of an upload-pack request after decompression.
    pub upload_request_bytes: u64,
    /// Bytes read away after a push was refused, on top of what the warrant lets a push have.
    pub drain_bytes: u64,
    /// Address space of the git that checks a pack, in bytes.
    pub check_memory: u64,
    /// Time of each check of a push.
    pub check_time: Duration,
    /// Bytes of a push that are looked through for secrets.
    pub scan_bytes: u64,
    /// Proxied connections at once.
    pub tunnels: usize,
    /// Time to reach a host.
    pub dial_time: Duration,
    /// Addresses tried for one name.
    pub dial_addresses: usize,
    /// Time to send the TLS client hello, once a tunnel is open.
    pub hello_time: Duration,
    /// Time until a host's answer to a plain request begins.
    pub answer_time: Duration,
    /// Bytes of a host's answer before its body, interim answers included.
    pub answer_head_bytes: u64,
    /// Time without a byte in a tunnel.
    pub tunnel_idle_time: Duration,
    /// Bytes of a request that calls tools of an inspected host.
    pub rpc_body_bytes: u64,
    /// Model calls at once.
    pub model_calls: usize,
    /// Bytes of a model request after decompression.
    pub model_request_bytes: u64,
    /// Bytes of model requests that are held at once.
    pub model_held_bytes: u64,
    /// Bytes of a provider's answer.
    pub model_answer_bytes: u64,
    /// Time to reach a provider.
    pub model_connect_time: Duration,
    /// Time until a provider's answer begins.
    pub model_answer_time: Duration,
    /// Time between two pieces of a provider's answer.
    pub model_idle_time: Duration,
    /// Model calls at one upstream at once, of all runs of a process, where the upstream does not say.
    pub upstream_calls: usize,
    /// Model calls that wait for one upstream.
    pub upstream_queue: usize,
    /// Time that a model call waits for its turn at an upstream.
    pub upstream_wait: Duration,
    /// Failures in a row after which an upstream is left alone.
    pub upstream_failures: u32,
    /// For how long, the first time.
    pub upstream_rest: Duration,
    /// Attempts of one model request.
    pub model_attempts: u32,
    /// Time until the last attempt of a model request.
    pub model_retry_time: Duration,
    /// The longest pause before another attempt that an upstream may ask for.
    pub model_retry_pause: Duration,
    /// The first pause before another attempt where the upstream asks for none.
    pub model_first_pause: Duration,
    /// Time for a reservation of money.
    pub reserve_time: Duration,
    /// Time that a call waits until money of others is free.
    pub money_wait_time: Duration,
    /// Time for settlements when a run ends.
    pub settle_time: Duration,
    /// Distinct refusals kept.
    pub refusals_kept: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            request_time: Duration::from_secs(30 * 60),
            git_processes: 4,
            upload_request_bytes: 16 * MIB,
            drain_bytes: 256 * MIB,
            check_memory: 2048 * MIB,
            check_time: Duration::from_secs(5 * 60),
            scan_bytes: 4096 * MIB,
            tunnels: 32,
            dial_time: Duration::from_secs(15),
            dial_addresses: 8,
            hello_time: Duration::from_secs(10),
            answer_time: Duration::from_secs(10 * 60),
            answer_head_bytes: 64 * KIB,
            tunnel_idle_time: Duration::from_secs(10 * 60),
            rpc_body_bytes: 4 * MIB,
            model_calls: 32,
            model_request_bytes: 32 * MIB,
            model_held_bytes: 96 * MIB,
            model_answer_bytes: 64 * MIB,
            model_connect_time: Duration::from_secs(15),
            model_answer_time: Duration::from_secs(10 * 60),
            model_idle_time: Duration::from_secs(5 * 60),
            upstream_calls: 64,
            upstream_queue: 256,
            upstream_wait: Duration::from_secs(60),
            upstream_failures: 5,
            upstream_rest: Duration::from_secs(15),
            model_attempts: 4,
            model_retry_time: Duration::from_secs(60),
            model_retry_pause: Duration::from_secs(20),
            model_first_pause: Duration::from_millis(500),
            reserve_time: Duration::from_secs(15),
            money_wait_time: Duration::from_secs(5 * 60),
            settle_time: Duration::from_secs(20),
            refusals_kept: 100,
        }
    }
}
