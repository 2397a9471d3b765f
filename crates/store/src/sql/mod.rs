//! The one door to SQL: registered statements, values that both engines bind alike, rows that both engines fill alike.
//!
//! Promises: no statement text is put together at run time except the repetition of an insert's row (`rows`); a tenant
//! statement is a [`Scoped`] constant that was checked by the compiler, and only the scope gateway can run it, which
//! binds `$1` itself; every statement is listed, so that a test prepares each one on both engines.

pub(crate) mod driver;
pub mod guard;
pub(crate) mod link;
#[expect(clippy::disallowed_methods, reason = "the door: the only place that hands a text to PostgreSQL")]
pub(crate) mod postgres;
pub(crate) mod row;
pub(crate) mod sqlite;

pub(crate) use link::Link;
pub(crate) use row::{Columns, Row};

use std::sync::OnceLock;

/// A tenant statement whose text binds the org; see [`crate::scoped!`]. Nothing outside this crate can run one.
#[derive(Debug, Clone, Copy)]
pub struct Scoped {
    pub(crate) text: &'static str,
}

impl Scoped {
    /// Checks a text. Call it through [`crate::scoped!`], which makes the compiler do it.
    ///
    /// # Panics
    /// At compile time, when the text does not bind the org.
    #[must_use]
    pub const fn checked(text: &'static str) -> Self {
        guard::scoped(text);
        Self { text }
    }
}

/// Makes a checked tenant statement from a text that binds `org_id = $1`, or inserts `org_id` first from `$1`.
///
/// ```
/// let _ = tipstaff_store::scoped!("select id from task where org_id = $1 and id = $2");
/// ```
///
/// A text that forgets the org does not compile:
///
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("select id from task where id = $1");
/// ```
///
/// Nor does one that only seems to have it, in a comment, a literal, or one side of an `or`:
///
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("select id from task -- where org_id = $1");
/// ```
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("select id from task where 'org_id = $1' <> $2");
/// ```
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("select id from task where org_id = $1 or state = $2");
/// ```
///
/// Nor one that binds it on one table of two, or for a row that goes to another org:
///
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("select t.id from task t join run r on r.task_id = t.id where t.org_id = $1");
/// ```
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("insert into task (id, org_id) values ($1, $2)");
/// ```
/// ```compile_fail,E0080
/// let _ = tipstaff_store::scoped!("update task set org_id = $2 where org_id = $1");
/// ```
#[macro_export]
macro_rules! scoped {
    ($text:expr) => {{
        const STATEMENT: $crate::sql::Scoped = $crate::sql::Scoped::checked($text);
        STATEMENT
    }};
}

/// A statement of the scheduler: across orgs, on the task table's ids, states and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheduler {
    pub(crate) text: &'static str,
}

impl Scheduler {
    pub(crate) const fn checked(text: &'static str) -> Self {
        guard::scheduler(text);
        Self { text }
    }
}

/// A statement that reads no tenant row: schema version, settings, local identities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System {
    pub(crate) text: &'static str,
}

/// A statement over many rows (`insert … values (…)`, `… in (values (…))`): the text of one row, repeated in a few fixed sizes so that each stays prepared.
///
/// Sizes are small on purpose: SQLite finds the index of a `$n` by walking a list, which makes a text of a thousand
/// placeholders slower than ten of a hundred.
#[derive(Debug)]
pub(crate) struct ScopedRows {
    pub(crate) one: Scoped,
    /// Placeholders `$1..=$shared` are the same in every row.
    pub(crate) shared: usize,
    texts: OnceLock<[String; ROW_SIZES.len() - 1]>,
}

/// Rows per statement, largest first.
pub(crate) const ROW_SIZES: [usize; 3] = [20, 5, 1];

impl ScopedRows {
    pub(crate) const fn new(one: Scoped, shared: usize) -> Self {
        Self { one, shared, texts: OnceLock::new() }
    }

    /// The text for `rows` rows, which is one of [`ROW_SIZES`].
    pub(crate) fn text(&'static self, rows: usize) -> &'static str {
        let texts = self.texts.get_or_init(|| {
            let [large, small, _] = ROW_SIZES;
            [large, small].map(|rows| repeat_row(self.one.text, self.shared, rows))
        });
        let [large, small, _] = ROW_SIZES;
        let [large_text, small_text] = texts;
        if rows == large {
            large_text
        } else if rows == small {
            small_text
        } else {
            self.one.text
        }
    }
}

/// Repeats the first `(…)` after `values`: `$1..=$shared` stay, the others count on.
fn repeat_row(text: &str, shared: usize, rows: usize) -> String {
    let Some((head, rest)) = text.split_once("values (") else { return text.to_owned() };
    let Some((row, tail)) = rest.split_once(')') else { return text.to_owned() };
    // Pieces between the `$`: all but the first begin with a number.
    let pieces: Vec<(usize, &str)> = row
        .split('$')
        .skip(1)
        .map(|piece| {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let (number, text) = piece.split_at(digits);
            (number.parse().unwrap_or(0), text)
        })
        .collect();
    let own = pieces.iter().map(|(number, _)| *number).max().unwrap_or(0).saturating_sub(shared);
    let before = row.split('$').next().unwrap_or_default();
    let mut out = format!("{head}values ");
    for index in 0..rows {
        out.push_str(if index == 0 { "(" } else { ", (" });
        out.push_str(before);
        for (number, text) in &pieces {
            let number = if *number > shared { number + index * own } else { *number };
            out.push_str(&format!("${number}{text}"));
        }
        out.push(')');
    }
    out.push_str(tail);
    out
}

/// What kind of statement a registered one is: it decides which role prepares it in the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Of a tenant.
    Scoped,
    /// Of the scheduler.
    Scheduler,
    /// Of neither.
    System,
}

/// A registered statement, for tests and for people who audit the SQL.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// Its constant's name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Its kind.
    pub kind: StatementKind,
    /// The engine it is for, where the two differ.
    pub engine: Option<crate::Engine>,
}

/// Declares the statements of a module, and its list `STATEMENTS`.
macro_rules! statements {
    ($( $(#[$meta:meta])* $kind:ident $(($($option:tt)+))? $name:ident = $text:expr; )*) => {
        $( $crate::sql::statements!(@declare $kind $(($($option)+))? $(#[$meta])* $name = $text); )*
        /// The statements of this module.
        pub(crate) const STATEMENTS: &[$crate::sql::Statement] = &[
            $( $crate::sql::Statement {
                name: stringify!($name),
                text: $text,
                kind: $crate::sql::statements!(@kind $kind),
                engine: $crate::sql::statements!(@engine $($($option)+)?),
            } ),*
        ];
    };
    (@declare scoped $(#[$meta:meta])* $name:ident = $text:expr) => {
        $(#[$meta])* pub(crate) const $name: $crate::sql::Scoped = $crate::sql::Scoped::checked($text);
    };
    (@declare rows (shared $shared:literal) $(#[$meta:meta])* $name:ident = $text:expr) => {
        $(#[$meta])* pub(crate) static $name: $crate::sql::ScopedRows =
            $crate::sql::ScopedRows::new($crate::scoped!($text), $shared);
    };
    (@declare scheduler $((engine $engine:ident))? $(#[$meta:meta])* $name:ident = $text:expr) => {
        $(#[$meta])* pub(crate) const $name: $crate::sql::Scheduler = $crate::sql::Scheduler::checked($text);
    };
    (@declare system $((engine $engine:ident))? $(#[$meta:meta])* $name:ident = $text:expr) => {
        $(#[$meta])* pub(crate) const $name: $crate::sql::System = $crate::sql::System { text: $text };
    };
    (@kind scoped) => { $crate::sql::StatementKind::Scoped };
    (@kind rows) => { $crate::sql::StatementKind::Scoped };
    (@kind scheduler) => { $crate::sql::StatementKind::Scheduler };
    (@kind system) => { $crate::sql::StatementKind::System };
    (@engine engine $engine:ident) => { Some($crate::Engine::$engine) };
    (@engine $($other:tt)*) => { None };
}
pub(crate) use statements;

/// A value of one placeholder. Both engines bind these four kinds alike.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Text(Option<&'a str>),
    Owned(String),
    Int(Option<i64>),
    Bytes(&'a [u8]),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(value))
    }
}
impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Owned(value)
    }
}
impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::Text(value)
    }
}
impl From<Option<String>> for Value<'_> {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::Text(None), Self::Owned)
    }
}
impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}
impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

macro_rules! id_values {
    ($($id:ty),*) => { $(
        impl From<$id> for Value<'_> {
            fn from(value: $id) -> Self { Self::Owned(value.to_string()) }
        }
        impl From<Option<$id>> for Value<'_> {
            fn from(value: Option<$id>) -> Self { value.map(|id| id.to_string()).into() }
        }
    )* };
}
id_values!(
    tipstaff_model::OrgId,
    tipstaff_model::MemberId,
    tipstaff_model::RepositoryId,
    tipstaff_model::AgentId,
    tipstaff_model::ApprovalId,
    tipstaff_model::SteerId,
    tipstaff_model::TaskId,
    tipstaff_model::RunId,
    tipstaff_model::WarrantId,
    tipstaff_model::id::RowId
);

/// The values of `$1…` or, for tenant statements, of `$2…`.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[ $( $crate::sql::Value::from($value) ),* ] };
}
pub(crate) use values;

/// The text of a statement as SQLite gets it: `$n` is written `?n`.
#[must_use]
pub fn on_sqlite(text: &str) -> String {
    sqlite::numbered(text)
}

/// Every registered statement.
#[must_use]
pub fn all() -> Vec<Statement> {
    crate::STATEMENTS.iter().flat_map(|module| module.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_repeat_with_their_own_placeholders() {
        let text =
            "insert into event (org_id, run_id, seq, body) values ($1, $2, $3, $4) on conflict do nothing";
        assert_eq!(
            repeat_row(text, 2, 3),
            "insert into event (org_id, run_id, seq, body) values ($1, $2, $3, $4), ($1, $2, $5, $6), ($1, $2, $7, $8) \
             on conflict do nothing"
        );
    }
}
