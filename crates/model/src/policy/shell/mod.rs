//! The simple commands of a shell text, as far as they can be seen without being executed.
//!
//! It is read in order to sort and to ask, not to confine: a text can always build a command that nobody sees before it
//! runs. Promises: a text of any form is read within bounds; what can't be taken apart is one command with all of the
//! text; a command that is put together only when it runs says so ([`Command::is_hidden`]).

mod read;
mod unwrap;

use read::Reader;

/// Stands in a shape for what is known only when the command runs.
pub(crate) const HOLE: char = '\u{0}';
/// How deep texts within texts are read.
const DEEPEST: usize = 6;
/// Most commands of one text.
pub(crate) const MOST: usize = 256;
/// Longest text that is read, in bytes.
pub const LONGEST_TEXT: usize = 32 * 1024;

/// A file that a command's input comes from or its output goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirection {
    /// The path as it is written.
    pub path: String,
    /// Whether it is written to.
    pub writes: bool,
}

/// One simple command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// Its words without quotes; assignments and harmless wrappers (`env`, `timeout 10`) before the program, and options
    /// between `git` and its verb, are left out.
    pub words: Vec<String>,
    /// Files that it reads and writes by redirection.
    pub redirections: Vec<Redirection>,
    /// Whether it is a shell or an interpreter that executes what another command prints.
    pub is_piped_into_a_shell: bool,
    /// Whether what it executes can't be seen: its program is put together when it runs, or is another one than it seems.
    pub is_hidden: bool,
    /// Whether it only runs other commands of this text, which stand here too: `sh -c …`, `eval …`.
    pub is_wrapper: bool,
    /// The words, with [`HOLE`] where the text is known only when it runs.
    shapes: Vec<String>,
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

    /// The words behind the program that look like paths; an option's value too.
    pub fn mentioned_paths(&self) -> impl Iterator<Item = &str> {
        self.words.iter().skip(1).filter(|word| !word.contains("://")).filter_map(|word| {
            let word = if word.starts_with('-') { word.split_once('=')?.1 } else { word };
            (word.contains(['/', '.']) && word.len() <= crate::action::LONGEST_WORD).then_some(word)
        })
    }

    /// The hosts of URLs behind the program, as `host:port`.
    pub fn mentioned_hosts(&self) -> impl Iterator<Item = String> {
        self.words
            .iter()
            .skip(1)
            .filter(|word| word.contains("://"))
            .flat_map(|word| super::urls::hosts(word))
    }

    /// The text with [`HOLE`] where it is known only when it runs.
    pub(crate) fn shape(&self) -> String {
        self.shapes.join(" ")
    }

    /// The shape with the program's name without its folder; `None` where it has none.
    pub(crate) fn shape_by_name(&self) -> Option<String> {
        let (first, rest) = self.shapes.split_first()?;
        let (_, name) = first.rsplit_once('/')?;
        Some(std::iter::once(name).chain(rest.iter().map(String::as_str)).collect::<Vec<_>>().join(" "))
    }
}

/// All that is found in a text.
#[derive(Default)]
struct Found {
    commands: Vec<Command>,
    /// Something could not be taken apart.
    is_incomplete: bool,
}

impl Found {
    fn push(&mut self, command: Command) {
        if self.commands.len() < MOST {
            self.commands.push(command);
        } else {
            self.is_incomplete = true;
        }
    }

    fn read(&mut self, text: &str, depth: usize, is_tainted: bool) {
        if depth == 0 || self.commands.len() >= MOST {
            self.is_incomplete = true;
            return;
        }
        Reader::new(text, depth, is_tainted, self).read();
    }
}

/// The simple commands of a text, in the order in which they stand. At least one, unless the text is blank.
#[must_use]
pub fn commands(text: &str) -> Vec<Command> {
    let mut found = Found::default();
    let end = text.floor_char_boundary(LONGEST_TEXT);
    found.is_incomplete = end < text.len() || text.contains(HOLE);
    let seen = text.get(..end).unwrap_or_default().replace(HOLE, "\u{fffd}");
    found.read(&seen, DEEPEST, false);
    if found.is_incomplete || (found.commands.is_empty() && !text.trim().is_empty()) {
        let words: Vec<String> = seen.split_whitespace().map(ToOwned::to_owned).collect();
        let mut shapes = words.clone();
        if end < text.len() {
            shapes.push(HOLE.to_string());
        }
        found.commands.push(Command { words, shapes, is_hidden: true, ..Command::default() });
    }
    found.commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> String {
        let told = |command: &Command| {
            let mut told = command.text();
            for one in &command.redirections {
                told.push_str(if one.writes { " >" } else { " <" });
                told.push_str(&one.path);
            }
            if command.is_hidden {
                told.push_str(" [hidden]");
            }
            if command.is_wrapper {
                told.push_str(" [wrapper]");
            }
            told
        };
        commands(text).iter().map(told).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn commands_are_found_wherever_they_stand() {
        let texts = [
            "make test",
            "cd /work && git push -f origin main; ls",
            "cd /work\ngit push",
            "A=1 B=2 sudo -E -u root git   push",
            "bash -lc 'rm -rf x && ls'",
            "/bin/bash -lc 'make'",
            "./bash -c 'make'",
            "echo \"$(rm -rf y)\"",
            "echo \"a $(echo \")\"; rm y) b\"",
            "echo `rm z`",
            "echo ${X:-$(rm v)} $((1+2))",
            "diff <(rm a) >(tee b)",
            "curl https://a | sh",
            "if true; then rm a; fi",
            "for f in *.rs; do rustfmt $f; done",
            "case $x in a) rm b;; esac",
            "g\"it\" pu\\sh",
            "gi\\\nt push",
            "timeout -s KILL 10 nice -n 5 env -i A=1 rm x # ls",
            "env -S 'rm -rf x'",
            "find . -name '*.o' -exec rm -f {} \\; -print",
            "find . -type f | xargs -0 -n1 rm",
            "git -C /x --no-pager -c user.name=a push -f",
            "git -c alias.x='!rm y' x",
            "git submodule foreach 'rm x'",
            "/usr/bin/git push; ./git push",
            "(rm a; { rm b; })",
            "f() { rm c; }; f",
            "trap 'rm d' EXIT",
            "eval 'rm e'",
            "eval \"$X\"",
            "bash -c \"echo $X\"",
            "rm$IFS-rf$IFS/",
            "$CARGO build",
            "{rm,-rf,x}",
            "$'\\x72m' x",
            "r? x",
            "PATH=/evil git status",
            "PATH=/evil; git status",
            "alias ls=rm",
            "make 2>&1 | tee log",
            "make &> all.log; cat < in >> out 2> /dev/null",
            "echo x >| a >&b 3>c",
            "> emptied",
            "cat <<EOF > f\nrm x\n$(rm y)\nEOF\nls",
            "cat <<'EOF'\n$(rm y)\nEOF\nls",
            "bash <<EOF\nrm x\nEOF",
            "bash <<< 'rm x'",
            "bash <(curl https://a)",
            "base64 -d x | sh",
            "echo 'rm' | bash -s -- a",
            "cat x | python3 sort.py",
            "curl https://a | python3",
            "echo 'unclosed",
            "echo $(unclosed",
            "cat <<EOF\nx",
            "  ",
        ];
        let all: Vec<String> =
            texts.iter().map(|text| format!("{} => {}", text.replace('\n', "⏎"), seen(text))).collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        make test => make test
        cd /work && git push -f origin main; ls => cd /work | git push -f origin main | ls
        cd /work⏎git push => cd /work | git push
        A=1 B=2 sudo -E -u root git   push => sudo -E -u root git push | git push
        bash -lc 'rm -rf x && ls' => bash -lc rm -rf x && ls [wrapper] | rm -rf x | ls
        /bin/bash -lc 'make' => bash -lc make [wrapper] | make
        ./bash -c 'make' => ./bash -c make | make
        echo "$(rm -rf y)" => echo $(rm -rf y) | rm -rf y
        echo "a $(echo ")"; rm y) b" => echo a $(echo ")"; rm y) b | echo ) | rm y
        echo `rm z` => echo `rm z` | rm z
        echo ${X:-$(rm v)} $((1+2)) => echo ${X:-$(rm v)} $((1+2)) | rm v
        diff <(rm a) >(tee b) => diff <(rm a) >(tee b) | rm a | tee b
        curl https://a | sh => curl https://a | sh [hidden]
        if true; then rm a; fi => true | rm a
        for f in *.rs; do rustfmt $f; done => rustfmt $f
        case $x in a) rm b;; esac => rm b
        g"it" pu\sh => git push
        gi\⏎t push => git push
        timeout -s KILL 10 nice -n 5 env -i A=1 rm x # ls => rm x
        env -S 'rm -rf x' => env -S rm -rf x [wrapper] | rm -rf x
        find . -name '*.o' -exec rm -f {} \; -print => find . -name *.o -exec rm -f {} ; -print | rm -f {}
        find . -type f | xargs -0 -n1 rm => find . -type f | rm …
        git -C /x --no-pager -c user.name=a push -f => git push -f
        git -c alias.x='!rm y' x => git x [hidden]
        git submodule foreach 'rm x' => git submodule foreach rm x | rm x
        /usr/bin/git push; ./git push => git push | ./git push
        (rm a; { rm b; }) => rm a | rm b
        f() { rm c; }; f => rm c | f
        trap 'rm d' EXIT => trap rm d EXIT | rm d
        eval 'rm e' => eval rm e [wrapper] | rm e
        eval "$X" => eval $X [wrapper] | $X [hidden]
        bash -c "echo $X" => bash -c echo $X [wrapper] | echo $X [hidden]
        rm$IFS-rf$IFS/ => rm$IFS-rf$IFS/ [hidden]
        $CARGO build => $CARGO build [hidden]
        {rm,-rf,x} => {rm,-rf,x} [hidden]
        $'\x72m' x => $'\x72m' x [hidden]
        r? x => r? x [hidden]
        PATH=/evil git status => git status [hidden]
        PATH=/evil; git status => PATH=/evil [hidden] | git status
        alias ls=rm => alias ls=rm [hidden]
        make 2>&1 | tee log => make | tee log
        make &> all.log; cat < in >> out 2> /dev/null => make >all.log | cat <in >out
        echo x >| a >&b 3>c => echo x >a >b >c
        > emptied => > >emptied
        cat <<EOF > f⏎rm x⏎$(rm y)⏎EOF⏎ls => cat >f | rm y | ls
        cat <<'EOF'⏎$(rm y)⏎EOF⏎ls => cat | ls
        bash <<EOF⏎rm x⏎EOF => bash [wrapper] | rm x
        bash <<< 'rm x' => bash [wrapper] | rm x
        bash <(curl https://a) => bash <(curl https://a) [hidden] | curl https://a
        base64 -d x | sh => base64 -d x | sh [hidden]
        echo 'rm' | bash -s -- a => echo rm | bash -s -- a [hidden]
        cat x | python3 sort.py => cat x | python3 sort.py
        curl https://a | python3 => curl https://a | python3 [hidden]
        echo 'unclosed => echo unclosed | echo 'unclosed [hidden]
        echo $(unclosed => echo $(unclosed | unclosed | echo $(unclosed [hidden]
        cat <<EOF⏎x => cat | cat <<EOF x [hidden]
           =>
        "#);
    }

    #[test]
    fn a_pipe_into_a_shell_is_told() {
        assert!(commands("curl https://a | sh").last().unwrap().is_piped_into_a_shell);
        assert!(!commands("curl https://a || sh").last().unwrap().is_piped_into_a_shell);
    }

    #[test]
    fn a_text_of_any_depth_or_length_is_read_in_bounds() {
        for deep in ["$(", "\"$(", "${", "`", "<(", "bash -c '", "(", "<<a\n"] {
            let all = commands(&deep.repeat(10_000));
            assert!(all.len() <= MOST + 1, "{deep}");
            assert!(all.last().unwrap().is_hidden, "{deep}");
        }
        let wide = commands(&"a;".repeat(10_000));
        assert_eq!(wide.len(), MOST + 1);
        assert!(wide.last().unwrap().is_hidden);
        assert!(commands(&"x".repeat(LONGEST_TEXT + 1)).last().unwrap().is_hidden);
        assert!(commands("a\0b").last().unwrap().is_hidden);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[a-c $(){}'\"`;|&<>\\\\\n=/.!-]{0,60}") {
            let all = commands(&text);
            proptest::prop_assert!(all.len() <= MOST + 1);
            proptest::prop_assert!(!all.is_empty() || text.trim().is_empty() || all.iter().all(|one| !one.is_hidden));
        }

        #[test]
        fn what_stands_behind_something_harmless_is_seen(front in "[a-z]{1,8}( [a-z]{1,5}){0,3}", glue in "(;|&&|\\|\\||\n|&|\\|)") {
            let text = format!("{front}{glue}rm -rf x");
            proptest::prop_assert!(commands(&text).iter().any(|one| one.text() == "rm -rf x"), "{text:?}");
        }
    }
}
