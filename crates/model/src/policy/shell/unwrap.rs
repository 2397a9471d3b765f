//! From the words of a simple command to the commands that they run: wrappers, shells within shells, `find -exec`.

use super::read::{Word, command};
use super::{Command, HOLE, Redirection};

/// What a simple command is made of.
#[derive(Debug, Default)]
pub(super) struct Simple {
    pub(super) words: Vec<Word>,
    /// Substitutions that run before it.
    pub(super) nested: Vec<String>,
    /// Texts that it reads on standard input, and whether expansions are in them.
    pub(super) input: Vec<(String, bool)>,
    redirections: Vec<Redirection>,
    /// A redirection leads to a file whose name is known only when it runs.
    is_hidden: bool,
}

impl Simple {
    pub(super) fn redirect(&mut self, word: Word, writes: bool) {
        const NOWHERE: &[&str] = &["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/tty"];
        self.is_hidden |= word.has_hole();
        if !NOWHERE.contains(&word.text.as_str()) {
            self.redirections.push(Redirection { path: word.text, writes });
        }
    }
}

/// The commands of a simple command, and texts that are commands again (each with whether expansions made it).
#[derive(Debug, Default)]
pub(super) struct Unwrapped {
    pub(super) commands: Vec<Command>,
    pub(super) inner: Vec<(String, bool)>,
}

const SHELLS: &[&str] = &["sh", "bash", "zsh", "dash", "ksh", "ash", "fish"];
const INTERPRETERS: &[&str] = &["python", "python2", "python3", "node", "perl", "ruby", "php", "deno", "bun"];
const KEYWORDS: &[&str] =
    &["if", "then", "else", "elif", "do", "while", "until", "!", "done", "fi", "esac", "coproc"];
/// Folders of programs that belong to the system.
const SYSTEM: &[&str] = &["/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/", "/usr/sbin/"];

/// What comes between a wrapper and the command that it runs.
struct Wrapper {
    name: &'static str,
    /// Options with a value of their own, behind a space or at once.
    valued: &'static [&'static str],
    /// Options without one.
    flags: &'static [&'static str],
    /// Words before the command.
    operands: usize,
    /// Whether the wrapper itself is judged too.
    is_told: bool,
    /// Whether more words come from elsewhere.
    is_fed: bool,
}

const fn wrapper(
    name: &'static str,
    valued: &'static [&'static str],
    flags: &'static [&'static str],
    operands: usize,
) -> Wrapper {
    Wrapper { name, valued, flags, operands, is_told: false, is_fed: false }
}

const WRAPPERS: &[Wrapper] = &[
    wrapper("env", &["-u", "--unset", "-C", "--chdir"], &["-i", "-", "--ignore-environment", "-0", "-v"], 0),
    wrapper("nohup", &[], &[], 0),
    wrapper("nice", &["-n", "--adjustment"], &[], 0),
    wrapper("ionice", &["-c", "-n"], &["-t"], 0),
    wrapper("time", &["-f", "-o", "--format", "--output"], &["-p", "-v", "-a"], 0),
    wrapper("exec", &["-a"], &["-c", "-l"], 0),
    wrapper("command", &[], &["-p"], 0),
    wrapper("builtin", &[], &[], 0),
    wrapper("stdbuf", &["-i", "-o", "-e"], &[], 0),
    wrapper("setsid", &[], &["-w", "-f", "-c"], 0),
    wrapper(
        "timeout",
        &["-s", "-k", "--signal", "--kill-after"],
        &["--preserve-status", "--foreground", "-v"],
        1,
    ),
    Wrapper {
        is_told: true,
        ..wrapper("sudo", &["-u", "-g", "-h", "-p", "-C", "-r", "-t", "-U", "-D", "-R", "-T"], &[], 0)
    },
    Wrapper { is_told: true, ..wrapper("doas", &["-u", "-C"], &[], 0) },
    Wrapper {
        is_fed: true,
        ..wrapper(
            "xargs",
            &[
                "-I",
                "-n",
                "-P",
                "-L",
                "-d",
                "-E",
                "-a",
                "-s",
                "--max-args",
                "--max-procs",
                "--delimiter",
                "--arg-file",
            ],
            &["-0", "-r", "-t", "-x", "--null", "--no-run-if-empty"],
            0,
        )
    },
];

/// Whether an assignment in front makes the program another one, or makes it execute something.
fn changes_the_program(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "SHELL",
        "EDITOR",
        "VISUAL",
        "PAGER",
        "PROMPT_COMMAND",
        "NODE_OPTIONS",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "MAKEFLAGS",
        "CC",
        "CXX",
    ];
    let is_told_by_front =
        ["LD_", "DYLD_", "GIT_", "PYTHON", "BASH_FUNC"].iter().any(|front| name.starts_with(front));
    NAMES.contains(&name) || is_told_by_front || name.ends_with("_PAGER") || name.ends_with("_RUNNER")
}

fn base_name(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

fn assigned(word: &Word) -> Option<&str> {
    let (name, _) = word.shape.split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    (starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')).then_some(name)
}

/// Most commands that one simple command is told as.
const MOST_TOLD: usize = 16;
/// How deep `find -exec find -exec …` is followed.
pub(super) const DEEPEST: usize = 4;

/// The commands that a simple command runs.
pub(super) fn unwrap(simple: Simple, is_fed: bool, depth: usize) -> Unwrapped {
    let Simple { mut words, nested, input, redirections, mut is_hidden } = simple;
    let mut out = Unwrapped::default();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let plain = (!word.is_quoted).then_some(word.text.as_str());
        if plain.is_some_and(|text| KEYWORDS.contains(&text)) {
            at += 1;
        } else if plain.is_some_and(|text| matches!(text, "for" | "select" | "case")) {
            // A head without a command; what it substitutes is read.
            at = words.len();
        } else if plain == Some("function") {
            at += 2;
        } else if let Some(name) = assigned(word) {
            is_hidden |= changes_the_program(name);
            at += 1;
        } else if let Some(next) = take_wrapper(&mut words, at, &mut out, &mut is_hidden) {
            at = next;
        } else {
            break;
        }
    }
    if at < words.len() {
        let own = out.commands.len();
        program(words.split_off(at), &input, is_fed, depth, &mut out);
        if let Some(own) = out.commands.get_mut(own) {
            own.redirections = redirections;
        }
    } else if is_hidden || !redirections.is_empty() {
        let shown = if words.is_empty() { vec![Word::of(">")] } else { words };
        out.commands.push(Command { redirections, ..command(&shown) });
    }
    for one in &mut out.commands {
        one.is_hidden |= is_hidden;
    }
    out.inner.extend(nested.into_iter().map(|text| (text, false)));
    out
}

/// Steps over one wrapper with its options; where what it runs begins, if there is a wrapper.
fn take_wrapper(
    words: &mut Vec<Word>,
    from: usize,
    out: &mut Unwrapped,
    is_hidden: &mut bool,
) -> Option<usize> {
    let all = words.get(from..).unwrap_or_default();
    let first = all.first().filter(|word| !word.has_hole())?;
    let name = base_name(&first.text);
    let wrapper = WRAPPERS.iter().find(|one| one.name == name).filter(|_| all.len() > 1)?;
    if name == "command" && all.get(1).is_some_and(|word| matches!(word.text.as_str(), "-v" | "-V")) {
        return None;
    }
    let is_foreign =
        first.text.contains('/') && !SYSTEM.iter().any(|folder| first.text == format!("{folder}{name}"));
    let is_told = wrapper.is_told || is_foreign;
    let mut at = 1;
    while let Some(word) = all.get(at).filter(|word| word.text.starts_with('-')) {
        let text = word.text.as_str();
        at += 1;
        if text == "--" {
            break;
        }
        let is_split =
            text == "--split-string" || text.starts_with("-S") || text.starts_with("--split-string=");
        if name == "env" && is_split {
            let attached =
                text.strip_prefix("--split-string=").or_else(|| text.strip_prefix("-S")).unwrap_or_default();
            let rest = all.get(at..).unwrap_or_default();
            let parts: Vec<&str> =
                std::iter::once(attached).chain(rest.iter().map(|word| word.text.as_str())).collect();
            out.inner.push((parts.join(" "), rest.iter().any(Word::has_hole) || word.has_hole()));
            out.commands.push(Command { is_wrapper: !is_foreign, ..command(all) });
            return Some(words.len());
        }
        if wrapper.valued.contains(&text) {
            at += 1;
        } else if !wrapper.flags.contains(&text) {
            let is_attached = wrapper.valued.iter().any(|option| {
                text.strip_prefix(option)
                    .is_some_and(|rest| !option.starts_with("--") || rest.starts_with('='))
            });
            let is_number =
                text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
            *is_hidden |= !(is_attached || wrapper.is_told || (is_number && name == "nice"));
        }
    }
    let inner = at + wrapper.operands;
    let runs = inner < all.len();
    if is_told {
        if out.commands.len() < MOST_TOLD {
            out.commands.push(command(all));
        } else {
            *is_hidden = true;
        }
    } else if !runs {
        return None;
    }
    if wrapper.is_fed && runs {
        words.push(Word { text: "…".to_owned(), shape: HOLE.to_string(), ..Word::default() });
    }
    Some(if runs { from + inner } else { words.len() })
}

/// The command of a program, with what it runs.
fn program(mut words: Vec<Word>, input: &[(String, bool)], is_fed: bool, depth: usize, out: &mut Unwrapped) {
    let Some(first) = words.first_mut() else { return };
    for folder in SYSTEM {
        if let Some(name) =
            first.text.strip_prefix(folder).filter(|name| !name.contains('/') && !name.is_empty())
        {
            (first.text, first.shape) = (name.to_owned(), name.to_owned());
            break;
        }
    }
    let mut is_hidden = first.has_hole() || first.has_pattern || first.text.is_empty();
    let name = base_name(&first.text).to_owned();
    let is_foreign = first.text.contains('/');
    let mut is_wrapper = false;
    let mut is_piped = false;
    if name == "git" {
        is_hidden |= git_options(&mut words);
    }
    let rest = words.get(1..).unwrap_or_default();
    let text_of = |from: usize| {
        let words = words.get(from..).unwrap_or_default();
        let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        (texts.join(" "), words.iter().any(Word::has_hole))
    };
    let after = |options: &[&str]| rest.iter().position(|word| options.contains(&word.text.as_str()));
    if SHELLS.contains(&name.as_str()) {
        let (script, operand) = shell_options(rest, &mut is_hidden);
        if let Some(script) = script {
            out.inner.push((script.text.clone(), script.has_hole()));
            is_wrapper = !is_foreign && !is_hidden;
        } else if let Some(operand) = operand {
            is_hidden |= operand.has_hole();
        } else {
            is_piped = is_fed;
            is_wrapper = !is_fed && !input.is_empty() && !is_foreign;
            out.inner.extend(input.iter().cloned());
        }
    } else if INTERPRETERS.contains(&name.as_str()) {
        is_piped = is_fed && rest.iter().all(|word| word.text == "-");
    }
    match name.as_str() {
        "eval" => {
            out.inner.push(text_of(1));
            is_wrapper = true;
        }
        "source" | "." => is_hidden |= rest.iter().any(Word::has_hole),
        "trap" => out.inner.extend(rest.first().map(|word| (word.text.clone(), word.has_hole()))),
        "alias" | "parallel" | "enable" => is_hidden = true,
        "su" => {
            let at = after(&["-c", "--command"]);
            out.inner
                .extend(at.and_then(|at| rest.get(at + 1)).map(|word| (word.text.clone(), word.has_hole())));
        }
        "git" => {
            let verb = rest.first().map_or("", |word| word.text.as_str());
            let run = match verb {
                "submodule" => after(&["foreach"]),
                "bisect" => after(&["run"]),
                "rebase" => after(&["-x", "--exec"]),
                _ => None,
            };
            out.inner.extend(run.map(|at| text_of(at + 2)));
        }
        _ => {}
    }
    let mut own = command(&words);
    own.is_hidden = is_hidden || is_piped;
    own.is_piped_into_a_shell = is_piped;
    own.is_wrapper = is_wrapper;
    out.commands.push(own);
    match name.as_str() {
        "find" => executed(rest, &["-exec", "-execdir", "-ok", "-okdir"], depth, out),
        "fd" | "fdfind" => executed(rest, &["-x", "-X", "--exec", "--exec-batch"], depth, out),
        _ => {}
    }
}

/// Takes the options between `git` and its verb away; whether one of them makes git execute something else.
fn git_options(words: &mut Vec<Word>) -> bool {
    const VALUED: &[&str] = &["-C", "--git-dir", "--work-tree", "--namespace", "--super-prefix"];
    const HARMLESS: &[&str] =
        &["user.", "color.", "advice.", "init.", "commit.gpgsign", "core.quotepath", "safe.directory"];
    const ANSWERS: &[&str] = &["--version", "--help", "-h", "-v", "--exec-path", "--html-path"];
    let mut is_hidden = false;
    let mut at = 1;
    while let Some(option) = words.get(at).filter(|word| word.text.starts_with('-')) {
        let option = option.text.as_str();
        if ANSWERS.contains(&option) {
            break;
        }
        at += 1;
        if option == "-c" || option == "--config-env" {
            let key = words.get(at).map(|setting| setting.shape.to_ascii_lowercase()).unwrap_or_default();
            is_hidden |= key.contains(HOLE) || !HARMLESS.iter().any(|front| key.starts_with(front));
            at += 1;
        } else if VALUED.contains(&option) {
            at += 1;
        } else if option.starts_with("--config-env=") || option.starts_with("--exec-path=") {
            is_hidden = true;
        }
    }
    words.drain(1..at.min(words.len()).max(1));
    is_hidden
}

/// The text of `-c`, and the first word that is no option.
fn shell_options<'w>(rest: &'w [Word], is_hidden: &mut bool) -> (Option<&'w Word>, Option<&'w Word>) {
    let mut has_text = false;
    let mut reads_input = false;
    let mut at = 0;
    while let Some(word) =
        rest.get(at).filter(|word| word.text.starts_with(['-', '+']) && word.text.len() > 1)
    {
        at += 1;
        match word.text.as_str() {
            "--" => break,
            "-o" | "+o" | "-O" | "+O" => at += 1,
            "--rcfile" | "--init-file" => {
                *is_hidden = true;
                at += 1;
            }
            text if text.starts_with("--") => {}
            text => {
                has_text |= text.starts_with('-') && text.contains('c');
                reads_input |= text.starts_with('-') && text.contains('s');
            }
        }
    }
    let operand = rest.get(at);
    if has_text { (operand, None) } else { (None, operand.filter(|word| !reads_input && word.text != "-")) }
}

/// The commands behind options such as `-exec`.
fn executed(rest: &[Word], options: &[&str], depth: usize, out: &mut Unwrapped) {
    let mut parts = rest.split(|word| options.contains(&word.text.as_str()));
    parts.next();
    for part in parts {
        let end = part.iter().position(|word| matches!(word.text.as_str(), ";" | "+")).unwrap_or(part.len());
        let words: Vec<Word> = part.get(..end).unwrap_or_default().iter().map(filled).collect();
        if depth == 0 || out.commands.len() >= MOST_TOLD {
            out.commands.iter_mut().for_each(|one| one.is_hidden = true);
            return;
        }
        let inner = unwrap(Simple { words, ..Simple::default() }, false, depth - 1);
        out.commands.extend(inner.commands);
        out.inner.extend(inner.inner);
    }
}

/// A word in which `{}` stands for the files that are found.
fn filled(word: &Word) -> Word {
    Word { shape: word.shape.replace("{}", &HOLE.to_string()), ..word.clone() }
}
