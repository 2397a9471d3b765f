//! Reading through the broker: what a run is shown, and what it can't ask for.

use crate::support::{NAME, Options, World, git, open_git, write};
use std::sync::Arc;
use tipstaff_broker::parse::pkt_line;
use tipstaff_broker::{Bounds, MirrorLimits, Mirrors, Quarantine};

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_the_base_and_no_other_ref() {
    let mut world = World::new().await;
    for version in ["0", "1", "2"] {
        let path = world.path(&format!("clone{version}"));
        let option = format!("protocol.version={version}");
        git(world.dir.path(), &["-c", &option, "clone", "-q", &world.url(), path.to_str().unwrap()])
            .await
            .succeeded();
        let refs = git(&path, &["for-each-ref", "--format=%(refname)"]).await.succeeded();
        assert_eq!(
            refs.lines().collect::<Vec<_>>(),
            ["refs/heads/main", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"],
            "protocol {version}"
        );
        assert_eq!(git(&path, &["rev-parse", "HEAD"]).await.succeeded().trim(), world.base.commit.as_str());
    }
    let report = world.stop().await;
    assert_eq!(report.refusals_total(), 0, "{:?}", report.refusals);
    assert!(report.connections >= 6 && report.bytes_in > 0 && report.bytes_out > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shallow_and_partial_clones_work_and_fetch_the_rest_later() {
    let mut world = World::new().await;
    let shallow = world.path("shallow");
    git(world.dir.path(), &["clone", "-q", "--depth=1", &world.url(), shallow.to_str().unwrap()])
        .await
        .succeeded();
    assert_eq!(git(&shallow, &["rev-list", "--count", "HEAD"]).await.succeeded().trim(), "1");
    git(&shallow, &["fetch", "-q", "--unshallow"]).await.succeeded();
    assert_eq!(git(&shallow, &["rev-list", "--count", "HEAD"]).await.succeeded().trim(), "2");
    for version in ["0", "1", "2"] {
        let partial = world.path(&format!("partial{version}"));
        let protocol = format!("protocol.version={version}");
        let (url, target) = (world.url(), partial.to_str().unwrap().to_owned());
        let clone: [&str; 8] =
            ["-c", &protocol, "clone", "-q", "--filter=blob:none", "--no-checkout", &url, &target];
        git(world.dir.path(), &clone).await.succeeded();
        // The checkout asks for blobs by id: granted refs lead to them.
        git(&partial, &["-c", &protocol, "checkout", "-q", "main"]).await.succeeded();
        assert!(partial.join("src/lib.rs").is_file());
        git(&partial, &["-c", &protocol, "show", "HEAD~1:src/lib.rs"]).await.succeeded();
    }
    assert_eq!(world.stop().await.refusals_total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_no_granted_ref_leads_to_are_refused_in_every_protocol() {
    let mut world = World::new().await;
    // The mirror itself holds the other branch, as it does after another run worked on it.
    let other = world.mirror.pin(Some("secret")).await.unwrap();
    let blob = git(&world.source, &["rev-parse", "secret:secret.txt"]).await.succeeded();
    for id in [other.commit.as_str(), blob.trim(), "1111111111111111111111111111111111111111"] {
        for version in ["0", "2"] {
            let clone = world.path("asker");
            git(world.dir.path(), &["init", "-q", clone.to_str().unwrap()]).await.succeeded();
            let option = format!("protocol.version={version}");
            let said = git(&clone, &["-c", &option, "fetch", &world.url(), id]).await;
            assert!(!said.ok, "{id} by protocol {version}: {}", said.text);
            assert!(!git(&clone, &["cat-file", "-e", id]).await.ok);
        }
        // A client that does not look at what is advertised.
        for two in [false, true] {
            let answer = world.raw(want(id, two)).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
            assert!(answer.contains("ref-not-granted") && !answer.contains("PACK"), "{answer}");
        }
    }
    let report = world.stop().await;
    assert!(report.refusals_total() >= 6);
    assert_eq!(world.control.refusals.lock().unwrap().len(), report.refusals.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_orgs_mirror_of_the_same_source_is_out_of_reach() {
    let mut world = World::new().await;
    // The folder of mirrors is the tenant: the other org mirrors the very same source, a commit further on.
    write(&world.source.join("later.txt"), "what the other org was shown\n");
    git(&world.source, &["add", "."]).await.succeeded();
    git(&world.source, &["commit", "-qm", "Later"]).await.succeeded();
    let others =
        Mirrors::new(Arc::clone(&world.git), world.path("mirrors-of-another"), MirrorLimits::default())
            .unwrap();
    let other = others.open(world.mirror.source()).await.unwrap();
    let later = other.pin(None).await.unwrap().commit;
    assert_eq!(other.path().file_name(), world.mirror.path().file_name(), "one name, two folders");
    let blob = git(&world.source, &["rev-parse", "HEAD:later.txt"]).await.succeeded();
    for id in [later.as_str(), blob.trim()] {
        assert!(git(other.path(), &["cat-file", "-e", id]).await.ok, "the other org has it");
        assert!(!git(world.mirror.path(), &["cat-file", "-e", id]).await.ok);
        assert!(!git(world.quarantine.path(), &["cat-file", "-e", id]).await.ok);
        for two in [false, true] {
            let answer = world.raw(want(id, two)).await;
            assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("PACK"), "{answer}");
        }
    }
    // What one org has does not make another's fetch cheaper, or tell that it is there.
    let packs = || std::fs::read_dir(world.mirror.objects().join("pack")).unwrap().count();
    let before = packs();
    world.mirror.pin(Some(later.as_str())).await.unwrap();
    assert!(packs() > before, "it was fetched, not taken over");
    world.stop().await;
}

fn want(id: &str, protocol_two: bool) -> Vec<u8> {
    let mut body = Vec::new();
    if protocol_two {
        pkt_line::write(&mut body, b"command=fetch");
        body.extend_from_slice(b"0001");
        pkt_line::write(&mut body, format!("want {id}\n").as_bytes());
        pkt_line::write(&mut body, b"done\n");
        body.extend_from_slice(b"0000");
    } else {
        pkt_line::write(&mut body, format!("want {id} ofs-delta\n").as_bytes());
        body.extend_from_slice(b"0000");
        pkt_line::write(&mut body, b"done\n");
    }
    let version = if protocol_two { "Git-Protocol: version=2\r\n" } else { "" };
    let mut request = format!(
        "POST /git/{NAME}.git/git-upload-pack HTTP/1.1\r\nHost: broker\r\n{version}Content-Type: application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_requests_are_read_and_bombs_are_refused() {
    use std::io::Write;
    let bounds = Bounds { upload_request_bytes: 64 * 1024, ..Bounds::default() };
    let mut world = World::with(Options { bounds, ..Options::default() }).await;
    let squeeze = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let post = |body: &[u8], encoding: &str| {
        let mut request = format!(
            "POST /git/{NAME}.git/git-upload-pack HTTP/1.1\r\nHost: b\r\nGit-Protocol: version=2\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    };
    let wanted = want(world.base.commit.as_str(), true);
    let body = &wanted[wanted.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4..];
    let answer = world.raw(post(&squeeze(body), "gzip")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("PACK"), "{answer}");
    let bomb = squeeze(&vec![b'0'; 64 * 1024 * 1024]);
    assert!(bomb.len() < 128 * 1024);
    assert!(world.raw(post(&bomb, "gzip")).await.starts_with("HTTP/1.1 413"));
    let mut cut = squeeze(body);
    cut.truncate(cut.len() - 6);
    assert!(world.raw(post(&cut, "gzip")).await.starts_with("HTTP/1.1 400"));
    assert!(world.raw(post(body, "gzip")).await.starts_with("HTTP/1.1 400"));
    assert!(world.raw(post(body, "br")).await.starts_with("HTTP/1.1 400"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_opens_again_and_only_its_broker_sweeps_it() {
    let mut world = World::new().await;
    let running = world.quarantine.path().join("incoming/99-1");
    std::fs::create_dir_all(running.join("pack")).unwrap();
    let git = open_git(world.dir.path()).await;
    let again = Quarantine::open(Arc::clone(&git), world.quarantine.path()).await.unwrap();
    assert_eq!(again.base(), &world.base.commit);
    assert!(running.exists(), "a look takes no running push away");
    world.stop().await;
    world.serve_again();
    assert_eq!(world.held(), 0);
    world.stop().await;
    assert_eq!(again.tip(&world.own()).await.unwrap(), None);
    assert_eq!(again.diffstat(&world.own()).await.unwrap().files_changed, 0);
    std::fs::create_dir_all(world.path("empty.git")).unwrap();
    let error = Quarantine::open(git, &world.path("empty.git")).await.unwrap_err();
    assert_eq!(error.code(), "not-a-repository");
}
