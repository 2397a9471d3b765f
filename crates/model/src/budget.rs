//! Budgets over a period, and the days that money is counted by.

use crate::charge::BudgetScope;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
    /// The runs of one agent together, by its name.
    Agent(String),
}

impl BudgetHolder {
    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> BudgetScope {
        match self {
            Self::Org => BudgetScope::Org,
            Self::Agent(_) => BudgetScope::Agent,
        }
    }

    /// The agent's name; empty for the org.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Org => "",
            Self::Agent(name) => name,
        }
    }
}

impl fmt::Display for BudgetHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("org"),
            Self::Agent(name) => write!(f, "agent:{name}"),
        }
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
}
