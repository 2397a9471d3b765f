//! Budgets over a period, and the days that money is counted by.

use crate::charge::BudgetScope;
use crate::id::MemberId;
use crate::money::MicroUsd;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

const DAY_MS: i64 = 86_400_000;
/// Days from the first of March of the year 0 to the Unix epoch.
const EPOCH: i64 = 719_468;
/// Days in 400 years.
const ERA: i64 = 146_097;

/// A day of the calendar, in UTC: days since 1970-01-01. Written `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CalendarDay(i64);

/// A text is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a day: write it as YYYY-MM-DD")]
pub struct CalendarDayError(String);

impl CalendarDay {
    /// The first day that can be written.
    pub const FIRST: Self = Self(0);
    /// The last day that can be written: 9999-12-31.
    pub const LAST: Self = Self(2_932_896);

    /// The day of a moment in milliseconds since the Unix epoch; moments outside 1970 to 9999 count for the nearest.
    #[must_use]
    pub fn at(ms: i64) -> Self {
        Self::from_number(ms.div_euclid(DAY_MS))
    }

    /// The day of this number, or the nearest that can be written.
    #[must_use]
    pub fn from_number(days: i64) -> Self {
        Self(days.clamp(Self::FIRST.0, Self::LAST.0))
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The day so many days before.
    #[must_use]
    pub fn before(self, days: i64) -> Self {
        Self::from_number(self.0.saturating_sub(days))
    }

    /// Year, month from 1, day from 1.
    #[must_use]
    pub const fn civil(self) -> (i64, i64, i64) {
        // Years are counted from March, so that the leap day is the last of its year.
        let shifted = self.0 + EPOCH;
        let era = shifted.div_euclid(ERA);
        let day = shifted.rem_euclid(ERA);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let in_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * in_year + 2) / 153;
        let in_month = in_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        (year + era * 400 + carry, month, in_month)
    }

    /// The first day of the period that this day is in.
    #[must_use]
    pub fn first_of(self, period: BudgetPeriod) -> Self {
        match period {
            BudgetPeriod::Day => self,
            // Day 0 was a Thursday.
            BudgetPeriod::Week => self.before((self.0 + 3).rem_euclid(7)),
            BudgetPeriod::Month => self.before(self.civil().2 - 1),
        }
    }
}

impl fmt::Display for CalendarDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for CalendarDay {
    type Err = CalendarDayError;
    fn from_str(text: &str) -> Result<Self, CalendarDayError> {
        let error = || CalendarDayError(text.chars().filter(|c| !c.is_control()).take(20).collect());
        let mut parts = text.split('-').map(|part| part.parse::<i64>().ok().filter(|n| *n >= 0));
        let (Some(Some(year)), Some(Some(month)), Some(Some(day)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        if !(1970..=9999).contains(&year) {
            return Err(error());
        }
        // At most this many days after the epoch, and near enough to search: the calendar itself says which it is.
        let near = (year - 1970) * 366 + (month.min(13) - 1) * 31 + day.min(32);
        let low = (year - 1970) * 365;
        let found = (low..=near).map(Self).find(|one| one.civil() == (year, month, day));
        found.filter(|one| one.to_string() == text).ok_or_else(error)
    }
}

impl Serialize for CalendarDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CalendarDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),* $(,)? } $error:ident $what:literal) => {
        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// A text is not one of the words.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error($what)]
        pub struct $error;

        impl FromStr for $name {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or($error)
            }
        }
    };
}

/// How long a budget lasts before it begins anew. Days, weeks (from Monday) and months of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// A day.
    Day,
    /// From Monday to Sunday.
    Week,
    /// From the first to the last.
    Month,
}
words!(BudgetPeriod { Day = "day", Week = "week", Month = "month" }
    BudgetPeriodError "it is no period: write day, week or month");

/// Whom a budget over a period binds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BudgetHolder {
    /// Everybody in the org together.
    Org,
    /// The runs on the repositories of one project together, by its name.
    Project(String),
    /// The runs that one person started, together.
    Person(MemberId),
    /// The runs of one agent together, by its name.
    Agent(String),
}

impl BudgetHolder {
    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> BudgetScope {
        match self {
            Self::Org => BudgetScope::Org,
            Self::Project(_) => BudgetScope::Project,
            Self::Person(_) => BudgetScope::Person,
            Self::Agent(_) => BudgetScope::Agent,
        }
    }

    /// The agent's or project's name, or the person's id; empty for the org.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Org => Cow::Borrowed(""),
            Self::Project(name) | Self::Agent(name) => Cow::Borrowed(name),
            Self::Person(member) => Cow::Owned(member.to_string()),
        }
    }
}

impl fmt::Display for BudgetHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("org"),
            other => write!(f, "{}:{}", other.scope(), other.name()),
        }
    }
}

/// Whether a text can name a project: 1 to 40 of a-z, 0-9 and `-`, starting with a letter; as agents are named.
#[must_use]
pub fn project_name_is_valid(name: &str) -> bool {
    crate::agent::agent_name_is_valid(name)
}

/// The largest share of a budget that an action may wait for, in percent: a budget that never stops can be overspent.
pub const LARGEST_PERCENT: u16 = 1_000;
/// The most shares at which a budget notifies.
pub const MOST_NOTICES: usize = 10;
/// The shortest and the longest pause between the model calls of a holder that is slowed down, in milliseconds.
pub const SLOW_PAUSE_MS: (u64, u64) = (1_000, 30_000);

/// What happens at which share of a budget over a period; shares in percent of its amount, 1 to [`LARGEST_PERCENT`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BudgetActions {
    /// People are told, at each of them once in a period. In order, none twice.
    pub notify: Vec<u16>,
    /// From here on, model calls come one at a time with a growing pause; absent for never.
    pub slow: Option<u16>,
    /// From here on, no model call is made; absent for a budget that only tells.
    pub stop: Option<u16>,
}

impl Default for BudgetActions {
    fn default() -> Self {
        Self { notify: vec![50, 80, 100], slow: None, stop: Some(100) }
    }
}

/// A text does not say at which share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a share in percent from 1 to {LARGEST_PERCENT}, or never")]
pub struct PercentError;

/// Reads one share in percent, such as `80` or `80%`, or `never`.
///
/// # Errors
/// For everything else.
pub fn percent_of(text: &str) -> Result<Option<u16>, PercentError> {
    if text == "never" {
        return Ok(None);
    }
    let number = text.strip_suffix('%').unwrap_or(text);
    let plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let share = plain.then(|| number.parse::<u16>().ok()).flatten();
    share.filter(|share| (1..=LARGEST_PERCENT).contains(share)).map(Some).ok_or(PercentError)
}

/// Reads shares such as `50,80,100`, or `never` for none; in order, none twice, at most [`MOST_NOTICES`].
///
/// # Errors
/// For everything else.
pub fn percents_of(text: &str) -> Result<Vec<u16>, PercentError> {
    if text == "never" || text.is_empty() {
        return Ok(Vec::new());
    }
    let mut shares = Vec::new();
    for part in text.split(',') {
        shares.push(percent_of(part.trim())?.ok_or(PercentError)?);
    }
    shares.sort_unstable();
    shares.dedup();
    if shares.len() > MOST_NOTICES { Err(PercentError) } else { Ok(shares) }
}

/// How much a share of an amount is; rounded down.
#[must_use]
pub fn share_of(amount: MicroUsd, percent: u16) -> MicroUsd {
    let micro = u128::from(amount.micro()) * u128::from(percent) / 100;
    MicroUsd::from_micro(u64::try_from(micro).unwrap_or(u64::MAX))
}

impl BudgetActions {
    /// Whether every share is one.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let one = |share: &u16| (1..=LARGEST_PERCENT).contains(share);
        self.notify.len() <= MOST_NOTICES
            && self.notify.iter().all(one)
            && self.notify.is_sorted_by(|left, right| left < right)
            && self.slow.iter().chain(&self.stop).all(one)
    }

    /// The shares at which something happens, in order.
    #[must_use]
    pub fn marks(&self) -> Vec<u16> {
        let mut marks: Vec<u16> = self.notify.iter().chain(&self.slow).chain(&self.stop).copied().collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }

    /// What may be spent before the budget stops; absent when it never does.
    #[must_use]
    pub fn limit(&self, amount: MicroUsd) -> Option<MicroUsd> {
        self.stop.map(|share| share_of(amount, share))
    }

    /// The pause between two calls at this point, in milliseconds; absent where calls are not slowed down. It grows
    /// with what is spent, from the first to the second of [`SLOW_PAUSE_MS`].
    #[must_use]
    pub fn pause_ms(&self, amount: MicroUsd, spent: MicroUsd) -> Option<u64> {
        let slow = self.slow?;
        let (from, spent) = (share_of(amount, slow).micro(), spent.micro());
        if spent < from {
            return None;
        }
        let (least, most) = SLOW_PAUSE_MS;
        let to = share_of(amount, self.stop.unwrap_or(100).max(slow)).micro();
        let (way, whole) = (spent - from, to.saturating_sub(from));
        if way >= whole {
            return Some(most);
        }
        let more = u128::from(most - least) * u128::from(way) / u128::from(whole);
        Some(least + u64::try_from(more).unwrap_or(0))
    }
}

impl fmt::Display for BudgetActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.notify.is_empty() {
            let shares: Vec<String> = self.notify.iter().map(ToString::to_string).collect();
            parts.push(format!("notify {}", shares.join(",")));
        }
        parts.extend(self.slow.map(|share| format!("slow {share}")));
        parts.push(self.stop.map_or_else(|| "never stops".to_owned(), |share| format!("stop {share}")));
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_and_read_as_the_calendar_has_them() {
        for (number, text) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (19_675, "2023-11-14"),
            (20_088, "2024-12-31"),
            (47_541, "2100-03-01"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(CalendarDay(number).to_string(), text);
            assert_eq!(text.parse(), Ok(CalendarDay(number)));
        }
        for bad in [
            "2023-02-29",
            "2100-02-29",
            "2023-13-01",
            "2023-00-10",
            "2023-1-1",
            "1969-12-31",
            "10000-01-01",
            "",
            "2023-11-14-1",
            "+2023-11-14",
            "2023-11-99999999999",
            "tomorrow",
        ] {
            assert!(bad.parse::<CalendarDay>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = CalendarDay(0).civil();
        for number in 1..60_000 {
            let (year, month, day) = CalendarDay(number).civil();
            let next = match last {
                (y, m, d) if (year, month, day) == (y, m, d + 1) => true,
                (y, m, d) if day == 1 && (year, month) == (y, m + 1) => d >= 28,
                (y, 12, 31) => (year, month, day) == (y + 1, 1, 1),
                _ => false,
            };
            assert!(next, "{number}: {last:?} then {year}-{month}-{day}");
            last = (year, month, day);
        }
    }

    #[test]
    fn periods_begin_on_mondays_and_firsts() {
        let day = |text: &str| text.parse::<CalendarDay>().unwrap();
        // 2023-11-14 was a Tuesday.
        let one = day("2023-11-14");
        assert_eq!(one.first_of(BudgetPeriod::Day), one);
        assert_eq!(one.first_of(BudgetPeriod::Week), day("2023-11-13"));
        assert_eq!(one.first_of(BudgetPeriod::Month), day("2023-11-01"));
        assert_eq!(day("2023-11-13").first_of(BudgetPeriod::Week), day("2023-11-13"));
        assert_eq!(day("2023-11-12").first_of(BudgetPeriod::Week), day("2023-11-06"));
        assert_eq!(CalendarDay::at(1_700_000_000_000), one);
        assert_eq!(CalendarDay::at(i64::MIN), CalendarDay::FIRST);
        assert_eq!(CalendarDay::at(i64::MAX), CalendarDay::LAST);
    }

    #[test]
    fn shares_are_read_exactly_or_refused() {
        assert_eq!(percents_of("100,50,80,50"), Ok(vec![50, 80, 100]));
        assert_eq!((percents_of("never"), percent_of("never")), (Ok(vec![]), Ok(None)));
        assert_eq!((percent_of("80%"), percent_of("1000")), (Ok(Some(80)), Ok(Some(1000))));
        for bad in ["0", "1001", "-1", "+5", "x", "50,,80", "never,50", "99999999", "%"] {
            assert!(percents_of(bad).is_err(), "{bad}");
        }
        assert!(percents_of("1,2,3,4,5,6,7,8,9,10,11").is_err());
        let actions = BudgetActions { notify: vec![50, 80], slow: Some(80), stop: None };
        assert!(actions.is_valid() && BudgetActions::default().is_valid());
        assert_eq!(
            (actions.marks(), actions.to_string().as_str()),
            (vec![50, 80], "notify 50,80, slow 80, never stops")
        );
        assert!(!BudgetActions { notify: vec![80, 50], ..BudgetActions::default() }.is_valid());
        assert!(!BudgetActions { stop: Some(0), ..BudgetActions::default() }.is_valid());
    }

    #[test]
    fn the_pause_grows_up_to_its_bound() {
        let micro = MicroUsd::from_micro;
        let actions = BudgetActions { slow: Some(80), ..BudgetActions::default() };
        let pauses: Vec<Option<u64>> = [0, 799, 800, 900, 999, 1_000, 5_000]
            .iter()
            .map(|spent| actions.pause_ms(micro(1_000), micro(*spent)))
            .collect();
        assert_eq!(pauses, [None, None, Some(1_000), Some(15_500), Some(29_855), Some(30_000), Some(30_000)]);
        assert_eq!(BudgetActions::default().pause_ms(micro(10), micro(10)), None);
        let open = BudgetActions { slow: Some(150), stop: None, ..BudgetActions::default() };
        assert_eq!(open.pause_ms(micro(100), micro(150)), Some(30_000));
        assert_eq!(actions.limit(micro(u64::MAX)), Some(micro(u64::MAX)));
        assert_eq!(BudgetActions { stop: Some(50), ..actions }.limit(micro(9)), Some(micro(4)));
    }
}
