//! The compile-time check of statement texts.
//!
//! [`scoped`] runs in a constant: a tenant statement that does not bind the org on every table it touches does not
//! compile. It reads tokens, not substrings, so a comment, a string literal or a quoted name can't satisfy it. It is
//! deliberately narrower than SQL: a text that it can't follow (`or`, `union`, `not (`) is refused, not trusted.

/// One token: a word, a number, a placeholder, or one punctuation character. `start == end` means the end.
#[derive(Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'$' || byte == b'.'
}

#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "evaluated by the compiler: a panic is the error message"
)]
const fn next_token(text: &[u8], from: usize) -> Token {
    let mut at = from;
    loop {
        if at >= text.len() {
            return Token { start: at, end: at };
        }
        match text[at] {
            b' ' | b'\n' => at += 1,
            b'\'' => {
                at += 1;
                while at < text.len() && text[at] != b'\'' {
                    at += 1;
                }
                assert!(at < text.len(), "a string literal in a statement does not end");
                at += 1;
                // The literal counts as one opaque token: its last quote.
                return Token { start: at - 1, end: at };
            }
            _ => break,
        }
    }
    let byte = text[at];
    if is_word(byte) {
        let start = at;
        while at < text.len() && is_word(text[at]) {
            at += 1;
        }
        return Token { start, end: at };
    }
    match byte {
        b'(' | b')' | b',' | b'=' | b'<' | b'>' | b'+' | b'*' | b'|' | b'!' => {}
        b'-' => assert!(at + 1 >= text.len() || text[at + 1] != b'-', "no comments in statements"),
        b'/' => assert!(at + 1 >= text.len() || text[at + 1] != b'*', "no comments in statements"),
        b';' => panic!("one statement per text: no ';'"),
        b'A'..=b'Z' => panic!("statements are written in lower case"),
        _ => panic!("a statement has a character that the scope check does not follow"),
    }
    Token { start: at, end: at + 1 }
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn is(text: &[u8], token: Token, word: &str) -> bool {
    let word = word.as_bytes();
    if token.end - token.start != word.len() {
        return false;
    }
    let mut at = 0;
    while at < word.len() {
        if text[token.start + at] != word[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether the token is `org_id` or `alias.org_id`.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn is_org_column(text: &[u8], token: Token) -> bool {
    let name = b"org_id";
    let length = token.end - token.start;
    if length < name.len() {
        return false;
    }
    let mut at = 0;
    while at < name.len() {
        if text[token.end - name.len() + at] != name[at] {
            return false;
        }
        at += 1;
    }
    length == name.len() || text[token.end - name.len() - 1] == b'.'
}

/// Whether the token starts a clause, so the predicate before it is complete.
const fn ends_predicate(text: &[u8], token: Token) -> bool {
    token.start == token.end
        || is(text, token, ")")
        || is(text, token, "and")
        || is(text, token, "where")
        || is(text, token, "order")
        || is(text, token, "group")
        || is(text, token, "limit")
        || is(text, token, "returning")
        || is(text, token, "on")
        || is(text, token, "join")
        || is(text, token, "left")
        || is(text, token, "for")
}

/// Accepts a tenant statement: every table it reads or changes has a conjunct `org_id = $1`, and every row it adds
/// starts with `org_id` bound to `$1`.
///
/// # Panics
/// At compile time, saying what is missing.
pub const fn scoped(text: &str) {
    let text = text.as_bytes();
    let mut sources = 0_usize;
    let mut bound = 0_usize;
    let mut added = 0_usize;
    let none = Token { start: 0, end: 0 };
    let (mut before, mut at) = (none, 0_usize);
    loop {
        let token = next_token(text, at);
        if token.start == token.end {
            break;
        }
        let after = next_token(text, token.end);
        assert!(
            !is(text, token, "or") && !is(text, token, "union") && !is(text, token, "except"),
            "a tenant statement has no 'or', 'union' or 'except': they widen what `org_id = $1` narrows"
        );
        assert!(
            !is(text, token, "truncate") && !is(text, token, "with"),
            "a tenant statement is one plain statement"
        );
        if is(text, token, "not") {
            assert!(!is(text, after, "("), "a tenant statement has no 'not (…)'");
        }
        if (is(text, token, "from") || is(text, token, "join")) && !is(text, after, "(") {
            sources += 1;
            refuse_second_table(text, after);
        }
        if is(text, token, "update") && !is(text, before, "do") && !is(text, before, "for") {
            sources += 1;
        }
        if is(text, token, "into") {
            check_insert(text, after);
            added += 1;
        }
        if is(text, token, "conflict") {
            let column = next_token(text, after.end);
            assert!(
                is(text, after, "(") && is_org_column(text, column),
                "a conflict target starts with org_id: `on conflict (org_id, …)`"
            );
        }
        if is_org_column(text, token) && is(text, after, "=") {
            let value = next_token(text, after.end);
            assert!(
                is(text, before, "where") || is(text, before, "and") || is(text, before, "on"),
                "org_id is compared as a conjunct (`where org_id = $1 and …`) and is never assigned"
            );
            assert!(is(text, value, "$1"), "org_id is compared with $1, which the scope gateway binds");
            assert!(
                ends_predicate(text, next_token(text, value.end)),
                "`org_id = $1` stands alone in its conjunct"
            );
            bound += 1;
        }
        before = token;
        at = token.end;
    }
    assert!(sources + added > 0, "a tenant statement names a table");
    assert!(bound >= sources, "a tenant statement binds `org_id = $1` for every table it reads or changes");
}

/// `from a, b` (also `from a x, b` and `from a as x, b`) would add a table that nothing counts.
const fn refuse_second_table(text: &[u8], name: Token) {
    let mut token = next_token(text, name.end);
    let mut words = 0;
    while words < 3 && token.start != token.end && !is(text, token, ")") {
        assert!(!is(text, token, ","), "tables are joined with 'join', not with a comma");
        if is(text, token, "where")
            || is(text, token, "join")
            || is(text, token, "on")
            || is(text, token, "order")
        {
            return;
        }
        token = next_token(text, token.end);
        words += 1;
    }
}

/// After `insert into`: `name (org_id, …) values ($1, …)` or `… select $1, …`.
const fn check_insert(text: &[u8], name: Token) {
    let open = next_token(text, name.end);
    let column = next_token(text, open.end);
    assert!(is(text, open, "(") && is(text, column, "org_id"), "an insert names org_id as its first column");
    let mut token = column;
    while token.start != token.end && !is(text, token, ")") {
        token = next_token(text, token.end);
    }
    token = next_token(text, token.end);
    let mut value = next_token(text, token.end);
    if is(text, token, "values") {
        assert!(is(text, value, "("), "an insert has values");
        value = next_token(text, value.end);
    } else {
        assert!(is(text, token, "select"), "an insert has values or a select");
    }
    assert!(is(text, value, "$1"), "an insert binds org_id to $1, which the scope gateway binds");
    assert!(is(text, next_token(text, value.end), ","), "an insert binds org_id to $1 alone");
}

/// Accepts a statement of the scheduler: it touches the task table only.
///
/// # Panics
/// At compile time, when it names another table.
pub const fn scheduler(text: &str) {
    let text = text.as_bytes();
    let none = Token { start: 0, end: 0 };
    let (mut before, mut at) = (none, 0_usize);
    loop {
        let token = next_token(text, at);
        if token.start == token.end {
            return;
        }
        let after = next_token(text, token.end);
        let update = is(text, token, "update") && !is(text, before, "for");
        if is(text, token, "from") || is(text, token, "join") || is(text, token, "into") || update {
            assert!(
                is(text, after, "task") || is(text, after, "picked"),
                "the scheduler touches the task table only"
            );
        }
        assert!(
            !is(text, token, "spec") && !is(text, token, "*") && !is(text, token, "dedup_key"),
            "the scheduler sees ids, states and times only"
        );
        before = token;
        at = token.end;
    }
}

#[cfg(test)]
mod tests {
    use super::{scheduler, scoped};

    fn accepts(text: &'static str) -> bool {
        std::panic::catch_unwind(|| scoped(text)).is_ok()
    }

    #[test]
    fn texts_that_bind_the_org_pass() {
        for text in [
            "select id from task where org_id = $1",
            "select id from task where org_id = $1 and id = $2",
            "select t.id from task t join run r on r.org_id = $1 and r.task_id = t.id where t.org_id = $1",
            "insert into task (org_id, id) values ($1, $2)",
            "insert into task (org_id, id) values ($1, $2) on conflict (org_id, id) do update set state = $3",
            "insert into task (org_id, id) select $1, id from run where org_id = $1",
            "update task set state = 'queued' where org_id = $1 and id = $2 returning id",
            "delete from task where org_id = $1",
            "update task set state = 'or; -- org_id' where org_id = $1",
            "select id from task where org_id = $1 order by id limit $2",
            "select id from task where org_id = $1 and not exists (select 1 from run where org_id = $1)",
        ] {
            // `not exists (` is fine, `not (` isn't.
            assert!(accepts(text), "{text}");
        }
    }

    #[test]
    fn forgetful_and_tricky_texts_are_refused() {
        for text in [
            "select id from task",
            "select 1",
            "select id from task where id = $1",
            "select id from task where org_id = $2",
            "select id from task where org_id = $11",
            "select id from task where 'org_id = $1' = $2",
            "select id from task -- where org_id = $1",
            "select id from task /* where org_id = $1 */",
            "select id from task where org_id = $1 or id = $2",
            "select id from task where (org_id = $1) or id = $2",
            "select id from task where not (id = $2 and org_id = $1)",
            "select id from task where not org_id = $1",
            "select id from task where org_id = $1 || ''",
            "select id from task where xorg_id = $1",
            "select id from task where org_id <> $1",
            "select id from task where coalesce(org_id, 'x') = $1",
            "select id from task where org_id = $1 union select id from run",
            "select t.id from task t join run r on r.task_id = t.id where t.org_id = $1",
            "select t.id from task t, run r where t.org_id = $1",
            "select id from task where org_id = $1 and id in (select task_id from run)",
            "insert into task (id, org_id) values ($1, $2)",
            "insert into task (org_id, id) values ($2, $1)",
            "insert into task values ($1, $2)",
            "insert into task (org_id, id) values ($1 || 'x', $2)",
            "insert into task (org_id, id) select $1, id from run",
            "insert into task (org_id, id) values ($1, $2) on conflict (id) do update set state = $3",
            "update task set org_id = $1 where id = $2",
            "update task set state = $2, org_id = $1 where id = $3",
            "update task set org_id = $1 where org_id = $1",
            "update task set state = $2",
            "delete from task",
            "select id from task where org_id = $1; delete from task",
            "SELECT id FROM task",
            "select id from \"task\" where org_id = $1",
            "with x as (select 1) select id from task where org_id = $1",
        ] {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn the_scheduler_touches_tasks_only() {
        for bad in
            ["select id from run", "select spec from task", "select * from task", "update run set state = $1"]
        {
            assert!(std::panic::catch_unwind(|| scheduler(bad)).is_err(), "{bad}");
        }
        scheduler("select id from task where state = 'queued' for update skip locked");
    }
}
