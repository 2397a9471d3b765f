//! Reading Rust source as text: enough to count lines and find words, no parser.

/// The source with comments, strings and character literals blanked out. Line
/// numbers stay the same.
pub fn without_comments_and_strings(source: &str) -> String {
    let mut rest = source;
    let mut code = String::with_capacity(source.len());
    while let Some(first) = rest.chars().next() {
        let length = skipped_length(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or("");
        } else {
            let (skipped, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
            code.extend(skipped.chars().filter(|character| *character == '\n'));
            code.push(' ');
            rest = after;
        }
    }
    code
}

/// Bytes at the start of `text` that are a comment, string or character
/// literal; 0 when it starts with code.
fn skipped_length(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if text.starts_with('"') {
        return quoted_length(text, '"');
    }
    if text.starts_with('\'') {
        return character_length(text);
    }
    let in_word = before.is_some_and(|character| character.is_alphanumeric() || character == '_');
    if text.starts_with('r') && (!in_word || matches!(before, Some('b' | 'c'))) {
        return raw_string_length(text);
    }
    0
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut position = 0;
    while let Some(rest) = text.get(position..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return position;
            }
        } else {
            position += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return position + 1;
        }
    }
    text.len()
}

/// A lifetime also begins with a quote: only `'x'` and `'\…'` are literals.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => quoted_length(text, '\''),
        (Some(_), Some((position, '\''))) => position + 1,
        _ => 0,
    }
}

fn raw_string_length(text: &str) -> usize {
    let after = text.trim_start_matches('r');
    let hashes = after.len() - after.trim_start_matches('#').len();
    let opening = text.len() - after.len() + hashes;
    if text.len() - after.len() != 1 || !text.get(opening..).is_some_and(|rest| rest.starts_with('"')) {
        return 0;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let body = opening + 1;
    match text.get(body..).and_then(|rest| rest.find(&closing)) {
        Some(found) => body + found + closing.len(),
        None => text.len(),
    }
}

/// Lines up to the first inline `#[cfg(test)] mod … {`.
pub fn production_lines(source: &str) -> usize {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    for (number, line) in lines.iter().enumerate() {
        if *line != "#[cfg(test)]" {
            continue;
        }
        let next = lines.iter().skip(number + 1).find(|line| !line.starts_with("#["));
        if next
            .is_some_and(|line| (line.starts_with("mod ") || line.starts_with("pub")) && line.ends_with('{'))
        {
            return number;
        }
    }
    lines.len()
}

/// True when `word` stands in `text` with no identifier character beside it.
pub fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(position, found)| {
        let before = text.get(..position).and_then(|head| head.chars().next_back());
        let after = text.get(position + found.len()..).and_then(|tail| tail.chars().next());
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_vanish_and_lines_stay() {
        let source = "let a = \"x\\\"y\"; // end\n/* one\n/* two */ three */ fn f<'a>(c: &'a str) { '\\''; 'q'; r#\"raw \" text\"# }\n";
        let code = without_comments_and_strings(source);
        assert_eq!(code.lines().count(), source.lines().count());
        for gone in ["x", "end", "one", "three", "raw", "text", "q"] {
            assert!(!has_word(&code, gone), "{gone} should be gone from {code}");
        }
        for stays in ["let", "fn", "str", "c"] {
            assert!(has_word(&code, stays), "{stays} should stay in {code}");
        }
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_file() {
        for source in ["\"open", "/* open", "r##\"open\"#", "'\\"] {
            assert_eq!(without_comments_and_strings(source).trim(), "");
        }
        assert_eq!(without_comments_and_strings("'"), "'");
    }

    #[test]
    fn production_ends_where_inline_tests_begin() {
        assert_eq!(production_lines("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n"), 1);
        assert_eq!(production_lines("fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n"), 4);
        assert_eq!(production_lines("#[cfg(test)]\nuse x;\nfn b() {}\n"), 3);
    }

    #[test]
    fn a_word_is_a_whole_word() {
        assert!(has_word("an unsafe fn", "unsafe"));
        assert!(!has_word("an unsafe_code lint", "unsafe"));
        assert!(!has_word("notunsafe", "unsafe"));
    }
}
