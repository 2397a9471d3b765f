//! The hosts of URLs in a text.

/// Most hosts that are found in one text.
const MOST: usize = 257;

/// The hosts of the `http` and `https` URLs in a text, each once, in lower case, as `host:port`.
#[must_use]
pub fn hosts(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = (rest.get(..at).unwrap_or_default(), rest.get(at + 3..).unwrap_or_default());
        rest = after;
        let letters: String = before
            .chars()
            .rev()
            .take(5)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect::<String>()
            .to_ascii_lowercase();
        let port = if letters.ends_with("https") || letters.ends_with("wss") {
            443
        } else if letters.ends_with("http") || letters.ends_with("ws") {
            80
        } else {
            continue;
        };
        let end =
            after.find(|c: char| c.is_whitespace() || "/?#\"'<>\\`|;&)(".contains(c)).unwrap_or(after.len());
        let authority = after.get(..end).unwrap_or_default();
        // What stands before the last `@` is a user, however much it looks like a host.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (name, given) = match authority.rsplit_once(':') {
            Some((name, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => (name, digits.parse().ok()),
            _ => (authority, None),
        };
        let name = name.trim_end_matches(['.', ',']).to_ascii_lowercase();
        if name.is_empty() {
            continue;
        }
        let host = format!("{name}:{}", given.unwrap_or(port));
        if found.len() < MOST && !found.contains(&host) {
            found.push(host);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_and_nobody_is_fooled_by_users() {
        for (text, expected) in [
            ("curl https://A.Example.com/x?y=http://b.example", "a.example.com:443 b.example:80"),
            ("https://good.example@evil.example/", "evil.example:443"),
            ("https://a.example:8443/.", "a.example:8443"),
            ("see https://a.example.", "a.example:443"),
            ("git://a.example ssh://b", ""),
            ("://", ""),
            ("https://", ""),
        ] {
            assert_eq!(hosts(text).join(" "), expected, "{text}");
        }
    }
}
