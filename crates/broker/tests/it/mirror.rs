//! Mirrors: every kind of source, every way to name a base, and what is said when it does not work.

use crate::support::{git, make_source, open_git, source_at, write};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tipstaff_broker::{BrokerError, Dirty, Mirror, MirrorLimits, Mirrors, PlainHttp, Source};

struct Place {
    dir: TempDir,
    mirrors: Mirrors,
}

impl Place {
    async fn new() -> Self {
        Self::bounded(MirrorLimits::default()).await
    }

    async fn bounded(limits: MirrorLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let git = open_git(dir.path()).await;
        let mirrors = Mirrors::new(Arc::clone(&git), dir.path().join("mirrors"), limits).unwrap();
        Self { dir, mirrors }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn source(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        make_source(&path).await;
        path
    }

    async fn mirror(&self, path: &Path) -> Mirror {
        self.mirrors.open(&source_at(path)).await.unwrap()
    }
}

async fn rev(path: &Path, name: &str) -> String {
    git(path, &["rev-parse", name]).await.succeeded().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_found_by_every_name_it_may_have() {
    let place = Place::new().await;
    let path = place.source("source").await;
    let mirror = place.mirror(&path).await;
    let (main, secret, first) =
        (rev(&path, "main").await, rev(&path, "secret").await, rev(&path, "main~1").await);
    for (base, commit, branch) in [
        (None, &main, Some("main")),
        (Some("HEAD"), &main, Some("main")),
        (Some("main"), &main, Some("main")),
        (Some("refs/heads/secret"), &secret, Some("secret")),
        (Some("v1"), &main, None),
        (Some("refs/tags/v1"), &main, None),
        (Some(first.as_str()), &first, None),
        (Some(&first[..9]), &first, None),
        (Some("main~1"), &first, None),
        (Some("HEAD^"), &first, None),
    ] {
        let pinned = mirror.pin(base).await.unwrap();
        assert_eq!(pinned.commit.as_str(), commit, "{base:?}");
        assert_eq!(pinned.branch.as_deref(), branch, "{base:?}");
    }
    for base in
        ["nope", "--upload-pack=touch x", "main:README.md", "*", "main~99", "0123456", "a b", "..", "@{-1}"]
    {
        let error = mirror.pin(Some(base)).await.unwrap_err();
        assert_eq!(error.code(), "base-not-found", "{base}: {error}");
    }
    let error = mirror.pin(Some("nope")).await.unwrap_err().to_string();
    assert!(error.contains("it has main, secret"), "{error}");
    git(&path, &["tag", "blob", "HEAD:README.md"]).await.succeeded();
    assert_eq!(mirror.pin(Some("blob")).await.unwrap_err().code(), "base-not-commit");
    // Our refs are ours alone.
    let refs = git(mirror.path(), &["for-each-ref", "--format=%(refname)"]).await.succeeded();
    assert!(
        refs.lines().all(|name| name.starts_with("refs/pins/") || name.starts_with("refs/seen/")),
        "{refs}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_are_incremental_and_see_what_is_new() {
    let place = Place::new().await;
    let path = place.source("source").await;
    let mirror = place.mirror(&path).await;
    let packs = || std::fs::read_dir(mirror.objects().join("pack")).unwrap().count();
    mirror.pin(None).await.unwrap();
    let before = packs();
    mirror.pin(None).await.unwrap();
    assert_eq!(packs(), before, "nothing new, nothing fetched");
    write(&path.join("new.txt"), "new\n");
    git(&path, &["add", "."]).await.succeeded();
    git(&path, &["commit", "-qm", "Third"]).await.succeeded();
    let pinned = mirror.pin(None).await.unwrap();
    assert_eq!(pinned.commit.as_str(), rev(&path, "HEAD").await);
    assert!(packs() > before);
    // History is rewritten upstream: the old pin stays, the new one is found; refs that collide do not matter.
    git(&path, &["commit", "-q", "--amend", "-m", "Other"]).await.succeeded();
    let other = mirror.pin(None).await.unwrap();
    assert_ne!(other.commit, pinned.commit);
    git(&path, &["branch", "-m", "main", "main/sub"]).await.succeeded();
    assert_eq!(mirror.pin(None).await.unwrap().branch.as_deref(), Some("main/sub"));
    assert_eq!(mirror.pin(Some(pinned.commit.as_str())).await.unwrap().commit, pinned.commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_fetch_one_mirror() {
    let place = Place::new().await;
    let path = place.source("source").await;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let (mirrors, path) = (place.mirrors.clone(), path.clone());
            tokio::spawn(async move {
                let base = ["main", "secret", "v1", "HEAD"][number % 4];
                mirrors.open(&source_at(&path)).await.unwrap().pin(Some(base)).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        std::fs::read_dir(place.path("mirrors")).unwrap().flatten().filter(|e| e.path().is_dir()).count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_folder_is_read() {
    let place = Place::new().await;
    let plain = place.source("plain").await;
    let head = rev(&plain, "HEAD").await;
    let odd = place.dir.path().join(OsStr::from_bytes(b"sp ace \xff 'q\"uote' $(x) #"));
    std::fs::rename(place.source("temporary").await, &odd).unwrap();
    let bare = place.path("bare.git");
    git(place.dir.path(), &["clone", "-q", "--bare", "plain", "bare.git"]).await.succeeded();
    let worktree = place.path("linked");
    git(&plain, &["worktree", "add", "-q", "--detach", worktree.to_str().unwrap(), "HEAD~1"])
        .await
        .succeeded();
    let shallow = place.path("shallow");
    let url = format!("file://{}", plain.display());
    git(place.dir.path(), &["clone", "-q", "--depth=1", &url, "shallow"]).await.succeeded();
    let borrowed = place.path("borrowed");
    git(place.dir.path(), &["clone", "-q", "--shared", "plain", "borrowed"]).await.succeeded();
    for (path, commit) in [
        (&odd, rev(&odd, "HEAD").await),
        (&bare, head.clone()),
        (&worktree, rev(&plain, "HEAD~1").await),
        (&shallow, head.clone()),
        (&borrowed, head.clone()),
        (&plain.join("src"), head.clone()),
        (&plain.join(".git"), head.clone()),
    ] {
        let mirror = place.mirror(path).await;
        let pinned = mirror.pin(None).await.unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(pinned.commit.as_str(), commit, "{path:?}");
    }
    assert!(place.mirror(&shallow).await.is_shallow());
    // The source gets its history later: so does the mirror.
    git(&shallow, &["fetch", "-q", "--unshallow"]).await.succeeded();
    write(&shallow.join("more.txt"), "x");
    git(&shallow, &["add", "."]).await.succeeded();
    git(&shallow, &["commit", "-qm", "More"]).await.succeeded();
    let mirror = place.mirror(&shallow).await;
    mirror.pin(None).await.unwrap();
    assert!(!mirror.is_shallow());
    let spelled = format!("file://{}/pl%61in", place.dir.path().display());
    let source = Source::parse(OsStr::new(&spelled), Path::new("/"), PlainHttp::LoopbackOnly).unwrap();
    assert_eq!(place.mirrors.open(&source).await.unwrap().path(), place.mirror(&plain).await.path());
    assert_eq!(source.repository_name().as_str(), "local/plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_commit_says_which_kind_it_is() {
    let place = Place::new().await;
    let empty = place.path("empty");
    git(place.dir.path(), &["init", "-q", "-b", "main", "empty"]).await.succeeded();
    assert_eq!(place.mirror(&empty).await.pin(None).await.unwrap_err().code(), "source-empty");
    let unborn = place.source("unborn").await;
    git(&unborn, &["checkout", "-q", "--orphan", "fresh"]).await.succeeded();
    let error = place.mirror(&unborn).await.pin(None).await.unwrap_err();
    assert!(matches!(&error, BrokerError::SourceUnborn { branch, .. } if branch == "fresh"), "{error}");
    assert!(place.mirror(&unborn).await.pin(Some("main")).await.is_ok());
    let wide = place.path("wide");
    git(place.dir.path(), &["init", "-q", "--object-format=sha256", "wide"]).await.succeeded();
    git(&wide, &["commit", "-q", "--allow-empty", "-m", "x"]).await.succeeded();
    assert_eq!(place.mirror(&wide).await.pin(None).await.unwrap_err().code(), "source-object-format");
    let broken = place.source("broken").await;
    for entry in std::fs::read_dir(broken.join(".git/objects")).unwrap().flatten() {
        if entry.file_name().len() == 2 {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    assert_eq!(place.mirror(&broken).await.pin(None).await.unwrap_err().code(), "source-unreadable");
    let gone = place.source("gone").await;
    let mirror = place.mirror(&gone).await;
    std::fs::remove_dir_all(&gone).unwrap();
    assert_eq!(mirror.pin(None).await.unwrap_err().code(), "source-unreadable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_larger_than_the_bound_is_refused_and_leaves_nothing_pinned() {
    let place = Place::bounded(MirrorLimits { fetch_bytes: 64 * 1024, ..MirrorLimits::default() }).await;
    let path = place.source("large").await;
    let mut noise = Vec::new();
    let mut state = 7_u64;
    while noise.len() < 512 * 1024 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&state.to_be_bytes());
    }
    std::fs::write(path.join("noise"), noise).unwrap();
    git(&path, &["add", "."]).await.succeeded();
    git(&path, &["commit", "-qm", "Noise"]).await.succeeded();
    let mirror = place.mirror(&path).await;
    let error = mirror.pin(None).await.unwrap_err();
    assert_eq!(error.code(), "source-too-large", "{error}");
    assert_eq!(git(mirror.path(), &["for-each-ref"]).await.succeeded(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_looks_like_is_told() {
    let place = Place::new().await;
    let path = place.source("source").await;
    let mirror = place.mirror(&path).await;
    let info = mirror.inspect().await.unwrap();
    assert_eq!(info.head_branch.as_deref(), Some("main"));
    assert_eq!(info.head_commit.unwrap().as_str(), rev(&path, "HEAD").await);
    assert_eq!((info.dirty, info.bare, info.shallow, info.partial), (Dirty::No, false, false, false));
    write(&path.join("README.md"), "changed\n");
    write(&path.join("untracked.txt"), "x\n");
    std::fs::remove_file(path.join("src/lib.rs")).unwrap();
    assert_eq!(mirror.inspect().await.unwrap().dirty, Dirty::Files(2));
    git(&path, &["add", "README.md"]).await.succeeded();
    assert_eq!(mirror.inspect().await.unwrap().dirty, Dirty::Files(2));
    git(&path, &["reset", "-q", "--hard"]).await.succeeded();
    git(&path, &["update-index", "--split-index"]).await.succeeded();
    assert_eq!(mirror.inspect().await.unwrap().dirty, Dirty::No);
    git(&path, &["checkout", "-q", "--detach"]).await.succeeded();
    let info = mirror.inspect().await.unwrap();
    assert_eq!((info.head_branch, info.dirty), (None, Dirty::No));
    let bare = place.path("bare.git");
    git(place.dir.path(), &["clone", "-q", "--bare", "source", "bare.git"]).await.succeeded();
    let info = place.mirror(&bare).await.inspect().await.unwrap();
    assert_eq!((info.dirty, info.bare), (Dirty::Unknown, true));
    git(place.dir.path(), &["init", "-q", "-b", "trunk", "empty"]).await.succeeded();
    let info = place.mirror(&place.path("empty")).await.inspect().await.unwrap();
    assert_eq!((info.head_branch.as_deref(), info.head_commit), (Some("trunk"), None));
    // Nothing of ours stays behind, in the source or in the mirror.
    assert!(!path.join(".git/index.lock").exists());
    assert!(
        !std::fs::read_dir(mirror.path())
            .unwrap()
            .flatten()
            .any(|e| e.file_name().to_string_lossy().starts_with("inspect"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_not_touched() {
    let place = Place::new().await;
    let path = place.source("source").await;
    let snapshot = || {
        let mut found = Vec::new();
        let mut folders = vec![path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                }
                found.push((entry.path(), meta.len(), meta.modified().unwrap()));
            }
        }
        found.sort();
        found
    };
    write(&path.join("README.md"), "dirty\n");
    let before = snapshot();
    let mirror = place.mirror(&path).await;
    mirror.inspect().await.unwrap();
    mirror.pin(None).await.unwrap();
    mirror.pin(Some("secret")).await.unwrap();
    assert_eq!(snapshot(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_behind_http_is_mirrored() {
    let mut world = crate::support::World::new().await;
    let place = Place::new().await;
    let source = Source::parse(OsStr::new(&world.url()), Path::new("/"), PlainHttp::LoopbackOnly).unwrap();
    assert_eq!(source.repository_name().as_str(), crate::support::NAME);
    let mirror = place.mirrors.open(&source).await.unwrap();
    let pinned = mirror.pin(None).await.unwrap();
    assert_eq!((&pinned.commit, pinned.branch.as_deref()), (&world.base.commit, Some("main")));
    let first = rev(&world.source, "main~1").await;
    assert_eq!(mirror.pin(Some(&first)).await.unwrap().commit.as_str(), first);
    assert_eq!(mirror.pin(Some(&first[..8])).await.unwrap().commit.as_str(), first);
    assert_eq!(mirror.inspect().await.unwrap().dirty, Dirty::Unknown);
    world.stop().await;
    let error = mirror.pin(None).await.unwrap_err();
    assert_eq!(error.code(), "source-unreadable", "{error}");
    // Credentials of a URL never even reach the error.
    let secret =
        Source::parse(OsStr::new("http://u:hunter2@127.0.0.1/x"), Path::new("/"), PlainHttp::Anywhere);
    assert!(!secret.unwrap_err().to_string().contains("hunter2"));
}
