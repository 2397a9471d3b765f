//! Which of our own paths a request means. There is one spelling of each; everything else is no path of ours.

use tipstaff_model::RepositoryName;

/// A path that the broker serves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /git/<owner>/<name>.git/info/refs?service=git-upload-pack`.
    UploadRefs(RepositoryName),
    /// `GET /git/<owner>/<name>.git/info/refs?service=git-receive-pack`.
    ReceiveRefs(RepositoryName),
    /// `POST /git/<owner>/<name>.git/git-upload-pack`.
    UploadPack(RepositoryName),
    /// `POST /git/<owner>/<name>.git/git-receive-pack`.
    ReceivePack(RepositoryName),
}

impl Route {
    /// The repository.
    #[must_use]
    pub const fn repository(&self) -> &RepositoryName {
        match self {
            Self::UploadRefs(name)
            | Self::ReceiveRefs(name)
            | Self::UploadPack(name)
            | Self::ReceivePack(name) => name,
        }
    }

    /// The method that it takes.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::UploadRefs(_) | Self::ReceiveRefs(_) => "GET",
            Self::UploadPack(_) | Self::ReceivePack(_) => "POST",
        }
    }
}

/// Why a path is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// It is spelled in a way that some readers would take for another path.
    Trick,
    /// Nothing is served there.
    Unknown,
}

/// Reads the path and query of a request in origin form.
///
/// # Errors
/// [`NoRoute`].
pub fn parse(target: &str) -> Result<Route, NoRoute> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    let tricky = !path.starts_with('/')
        || !path.bytes().all(plain)
        || path.contains("//")
        || path.split('/').any(|part| matches!(part, "." | ".."));
    if tricky {
        return Err(NoRoute::Trick);
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (owner, name, action) = match parts.as_slice() {
        ["git", owner, name, "info", "refs"] => (owner, name, "info/refs"),
        ["git", owner, name, action] => (owner, name, *action),
        _ => return Err(NoRoute::Unknown),
    };
    let name = name.strip_suffix(".git").ok_or(NoRoute::Unknown)?;
    let repository: RepositoryName = format!("{owner}/{name}").parse().map_err(|_| NoRoute::Unknown)?;
    match (action, query) {
        ("info/refs", Some("service=git-upload-pack")) => Ok(Route::UploadRefs(repository)),
        ("info/refs", Some("service=git-receive-pack")) => Ok(Route::ReceiveRefs(repository)),
        ("git-upload-pack", None) => Ok(Route::UploadPack(repository)),
        ("git-receive-pack", None) => Ok(Route::ReceivePack(repository)),
        _ => Err(NoRoute::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn there_is_one_spelling_of_each_path() {
        let route = parse("/git/team/app.git/info/refs?service=git-upload-pack").unwrap();
        assert_eq!((route.repository().as_str(), route.method()), ("team/app", "GET"));
        for trick in [
            "/git/team/../other/app.git/git-upload-pack",
            "/git/./team/app.git/git-upload-pack",
            "/git//team/app.git/git-upload-pack",
            "//git/team/app.git/git-upload-pack",
            "/git/%2e%2e/app.git/git-upload-pack",
            "/git/team%2fapp.git/git-upload-pack",
            "/git/team\\app.git/git-upload-pack",
            "/git/team/app.git/git-upload-pack\0",
            "git/team/app.git/git-upload-pack",
            "/git/team/äpp.git/git-upload-pack",
            "*",
            "",
        ] {
            assert_eq!(parse(trick), Err(NoRoute::Trick), "{trick:?}");
        }
        for unknown in [
            "/",
            "/git/team/app.git/HEAD",
            "/git/team/app.git/objects/info/packs",
            "/git/team/app/git-upload-pack",
            "/git/team/app.git/info/refs",
            "/git/team/app.git/info/refs?service=git-upload-archive",
            "/git/team/app.git/info/refs?service=git-upload-pack&x=1",
            "/git/team/app.git/git-upload-pack?x",
            "/git/team/app.git/git-upload-pack/",
            "/git/.team/app.git/git-upload-pack",
            "/git/team/app.git.git/git-upload-pack",
            "/git/team/sub/app.git/git-upload-pack",
        ] {
            assert_eq!(parse(unknown), Err(NoRoute::Unknown), "{unknown:?}");
        }
    }

    proptest! {
        #[test]
        fn a_route_is_never_another_spelling_of_another(target in "[/a-zA-Z0-9.%_?=\\\\-]{0,60}") {
            if let Ok(route) = parse(&target) {
                let name = route.repository();
                let (action, query) = match route {
                    Route::UploadRefs(_) => ("info/refs", "?service=git-upload-pack"),
                    Route::ReceiveRefs(_) => ("info/refs", "?service=git-receive-pack"),
                    Route::UploadPack(_) => ("git-upload-pack", ""),
                    Route::ReceivePack(_) => ("git-receive-pack", ""),
                };
                prop_assert_eq!(target.clone(), format!("/git/{name}.git/{action}{query}"));
            }
        }
    }
}
