//! The simple commands of a shell text, as far as they can be seen without being executed.
//!
//! It is read in order to sort and to ask, not to confine: a text can always build a command that nobody sees before it
//! runs. What can't be taken apart is one command with all of the text.

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its words without quotes; assignments before the program are left out.
    pub words: Vec<String>,
    /// Whether it is a shell or an interpreter that reads what another command prints.
    pub is_piped_into_a_shell: bool,
}

impl Command {
    /// The words joined by one space.
    #[must_use]
    pub fn text(&self) -> String {
        self.words.join(" ")
    }

    /// The program's name without its folder.
    #[must_use]
    pub fn program(&self) -> &str {
        let first = self.words.first().map_or("", String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }
}

const SHELLS: &[&str] =
    &["sh", "bash", "zsh", "dash", "ksh", "fish", "python", "python3", "node", "perl", "ruby"];
/// Words before a command that run it.
const WRAPPERS: &[&str] =
    &["sudo", "env", "nohup", "nice", "time", "exec", "command", "xargs", "stdbuf", "timeout"];
/// How deep texts within texts are read.
const DEEPEST: usize = 4;
/// Most commands of one text.
const MOST: usize = 256;

/// The simple commands of a text, in the order in which they stand. At least one, unless the text is blank.
#[must_use]
pub fn commands(text: &str) -> Vec<Command> {
    let mut found = Vec::new();
    read(text, DEEPEST, &mut found);
    if found.is_empty() && !text.trim().is_empty() {
        let words = text.split_whitespace().map(ToOwned::to_owned).collect();
        found.push(Command { words, is_piped_into_a_shell: false });
    }
    found
}

fn read(text: &str, depth: usize, found: &mut Vec<Command>) {
    let mut state = Reader::default();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (state.quote, c) {
            (None, '\\') => {
                if let Some(next) = chars.next()
                    && next != '\n'
                {
                    state.push(next);
                }
            }
            (Some('"'), '\\') => match chars.next() {
                Some(next @ ('"' | '\\' | '$' | '`')) => state.push(next),
                Some('\n') | None => {}
                Some(next) => {
                    state.push('\\');
                    state.push(next);
                }
            },
            (None, '\'' | '"') => {
                state.quote = Some(c);
                state.in_word = true;
            }
            (Some(quote), _) if c == quote => state.quote = None,
            // A substitution is a text of its own, inside double quotes too.
            (None | Some('"'), '$') if chars.peek() == Some(&'(') => {
                chars.next();
                let inner = until_closing(&mut chars, ')');
                state.nested.push(inner);
                state.push('$');
            }
            (None | Some('"'), '`') => {
                let inner: String = chars.by_ref().take_while(|c| *c != '`').collect();
                state.nested.push(inner);
                state.push('$');
            }
            (None, '#') if !state.in_word => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            (None, ';' | '\n' | '(' | ')' | '{' | '}' | '&') => {
                if c == '&' && state.after_redirection() {
                    state.push(c);
                } else {
                    state.end(false, depth, found);
                }
            }
            (None, '|') => {
                let or = chars.peek() == Some(&'|');
                if or {
                    chars.next();
                }
                state.end(!or, depth, found);
            }
            (None, c) if c.is_whitespace() => state.end_word(),
            (_, c) => state.push(c),
        }
        if found.len() >= MOST {
            return;
        }
    }
    state.end(false, depth, found);
}

fn until_closing(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, closing: char) -> String {
    let mut open = 1;
    let mut inner = String::new();
    for c in chars.by_ref() {
        if c == '(' {
            open += 1;
        } else if c == closing {
            open -= 1;
            if open == 0 {
                break;
            }
        }
        inner.push(c);
    }
    inner
}

#[derive(Default)]
struct Reader {
    quote: Option<char>,
    word: String,
    in_word: bool,
    words: Vec<String>,
    nested: Vec<String>,
    /// Whether the command before this one feeds it.
    fed: bool,
}

impl Reader {
    fn push(&mut self, c: char) {
        self.word.push(c);
        self.in_word = true;
    }

    fn after_redirection(&self) -> bool {
        self.word.ends_with('>') || self.word.ends_with('<')
    }

    fn end_word(&mut self) {
        if self.in_word {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    fn end(&mut self, feeds: bool, depth: usize, found: &mut Vec<Command>) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        let fed = std::mem::replace(&mut self.fed, feeds);
        let nested = std::mem::take(&mut self.nested);
        let words = bare(words);
        if !words.is_empty() {
            let mut command = Command { words, is_piped_into_a_shell: false };
            command.is_piped_into_a_shell = fed && SHELLS.contains(&command.program());
            let inner = inner_text(&command);
            found.push(command);
            if let Some(inner) = inner.filter(|_| depth > 0) {
                read(&inner, depth - 1, found);
            }
        }
        for inner in nested {
            if depth > 0 && found.len() < MOST {
                read(&inner, depth - 1, found);
            }
        }
    }
}

/// The words without keywords of the shell, assignments and wrappers in front.
fn bare(mut words: Vec<String>) -> Vec<String> {
    const KEYWORDS: &[&str] = &["if", "then", "else", "elif", "do", "while", "until", "!", "done", "fi"];
    loop {
        let Some(first) = words.first() else { return words };
        let assigns = first.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        let program = first.rsplit('/').next().unwrap_or(first);
        if assigns || KEYWORDS.contains(&first.as_str()) {
            words.remove(0);
        } else if WRAPPERS.contains(&program) && words.len() > 1 {
            words.remove(0);
            // Options of the wrapper, and a number as of `timeout 10`.
            while words.len() > 1
                && words.first().is_some_and(|word| {
                    word.starts_with('-') || word.starts_with(|c: char| c.is_ascii_digit())
                })
            {
                words.remove(0);
            }
        } else {
            return words;
        }
    }
}

/// The text that `sh -c TEXT`, `bash -lc TEXT` and `eval TEXT` execute.
fn inner_text(command: &Command) -> Option<String> {
    let program = command.program();
    if program == "eval" {
        return Some(command.words.get(1..)?.join(" "));
    }
    if !SHELLS.contains(&program) {
        return None;
    }
    let option = command.words.iter().position(|word| {
        word.starts_with('-') && !word.starts_with("--") && word.ends_with('c') && word.len() <= 4
    })?;
    command.words.get(option + 1).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_wherever_they_stand() {
        let seen = |text: &str| commands(text).iter().map(Command::text).collect::<Vec<_>>().join(" | ");
        for (text, expected) in [
            ("make test", "make test"),
            ("cd /work && git push -f origin main; ls", "cd /work | git push -f origin main | ls"),
            ("A=1 B=2 sudo -E git   push", "git push"),
            ("bash -lc 'rm -rf x && ls'", "bash -lc rm -rf x && ls | rm -rf x | ls"),
            ("echo \"$(rm -rf y)\"", "echo $ | rm -rf y"),
            ("echo `rm z`", "echo $ | rm z"),
            ("curl https://a | sh", "curl https://a | sh"),
            ("if true; then rm a; fi", "true | rm a"),
            ("g\"it\" pu\\sh", "git push"),
            ("timeout 10 rm x # ls", "rm x"),
            ("make 2>&1 | tee log", "make 2>&1 | tee log"),
            ("  ", ""),
        ] {
            assert_eq!(seen(text), expected, "{text}");
        }
        assert!(commands("curl https://a | sh").last().unwrap().is_piped_into_a_shell);
        assert!(!commands("curl https://a || sh").last().unwrap().is_piped_into_a_shell);
    }

    #[test]
    fn a_text_of_any_depth_or_length_is_read_in_bounds() {
        let deep = "$(".repeat(10_000);
        assert!(commands(&deep).len() <= MOST);
        let wide = "a;".repeat(10_000);
        assert_eq!(commands(&wide).len(), MOST);
    }
}
