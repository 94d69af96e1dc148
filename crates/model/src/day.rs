//! Days and working days (工作日) in China, by which the law counts deadlines.

use borsh::{BorshDeserialize, BorshSerialize};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// China's offset from UTC, in milliseconds: eight hours, the year round.
const OFFSET_MS: u64 = 8 * 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// A day in China: how many days it is after 1970-01-01.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Day(pub u32);

/// Not a day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a day like 2026-10-01, from 1970 to 9999")]
pub struct DayError;

impl Day {
    /// The day of a time in milliseconds since 1970.
    pub fn of(ms: u64) -> Self {
        Self(u32::try_from(ms.saturating_add(OFFSET_MS) / DAY_MS).unwrap_or(u32::MAX))
    }

    /// Its first moment, in milliseconds since 1970.
    pub fn begins_ms(self) -> u64 {
        (u64::from(self.0) * DAY_MS).saturating_sub(OFFSET_MS)
    }

    /// Its last moment, in milliseconds since 1970.
    pub fn ends_ms(self) -> u64 {
        u64::from(self.0) * DAY_MS + DAY_MS - OFFSET_MS - 1
    }

    /// The day after.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether it is a Saturday or Sunday. (1970-01-01 was a Thursday.)
    pub fn is_weekend(self) -> bool {
        matches!(self.0 % 7, 2 | 3)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // civil-from-days, H. Hinnant, "chrono-compatible low-level date algorithms"
        let z = i64::from(self.0) + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
        write!(f, "{:04}-{month:02}-{day:02}", yoe + era * 400 + i64::from(month <= 2))
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let digits = |part: &str, length: usize| {
            let fits = part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
            fits.then(|| part.parse::<i64>().ok()).flatten().ok_or(DayError)
        };
        let mut parts = text.split('-');
        let (Some(year), Some(month), Some(day), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(DayError);
        };
        let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
        // days-from-civil, of the same paper
        let y = year - i64::from(month <= 2);
        let era = y.div_euclid(400);
        let yoe = y.rem_euclid(400);
        let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
        let found = Self(u32::try_from(era * 146_097 + doe - 719_468).map_err(|_| DayError)?);
        // what is no day of its month comes out as another
        if (1..=12).contains(&month) && found.to_string() == text { Ok(found) } else { Err(DayError) }
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <String as Deserialize>::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Day {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Day".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date" })
    }
}

/// Which days are working days: Monday to Friday but for public holidays, and the weekends that are worked in exchange (调休),
/// as the State Council announces them each year.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct WorkingDays {
    /// Days from Monday to Friday that are off, in ascending order.
    pub holidays: Vec<Day>,
    /// Saturdays and Sundays that are worked, in ascending order.
    pub worked_weekends: Vec<Day>,
}

impl WorkingDays {
    /// The most days of either list.
    pub const DAYS_MAX: usize = 1024;

    /// Whether a day is worked.
    pub fn is_working(&self, day: Day) -> bool {
        match day.is_weekend() {
            true => self.worked_weekends.binary_search(&day).is_ok(),
            false => self.holidays.binary_search(&day).is_err(),
        }
    }

    /// The last moment of the `n`th working day after the day of a time; both in milliseconds since 1970. The day something
    /// begins on does not count (民法典 201).
    pub fn deadline_ms(&self, from_ms: u64, n: u16) -> u64 {
        let mut day = Day::of(from_ms);
        let mut left = n;
        while left > 0 && day.0 < u32::MAX {
            day = day.next();
            left -= u16::from(self.is_working(day));
        }
        day.ends_ms()
    }

    /// What must hold of a calendar; says what does not.
    pub fn check(&self) -> Result<(), String> {
        for (what, days) in [("holidays", &self.holidays), ("worked_weekends", &self.worked_weekends)] {
            if days.len() > Self::DAYS_MAX {
                return Err(format!("{what}: at most {} days", Self::DAYS_MAX));
            }
            if !days.windows(2).all(|w| w[0] < w[1]) {
                return Err(format!("{what}: the days must stand in ascending order, each once"));
            }
        }
        if let Some(day) = self.holidays.iter().find(|d| d.is_weekend()) {
            return Err(format!("holidays: {day} is a Saturday or Sunday, and off already"));
        }
        if let Some(day) = self.worked_weekends.iter().find(|d| !d.is_weekend()) {
            return Err(format!("worked_weekends: {day} is no Saturday or Sunday"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_reads_back_as_itself_only() {
        for text in ["1970-01-01", "2000-02-29", "2024-02-29", "2026-11-26", "9999-12-31"] {
            assert_eq!(day(text).to_string(), text);
        }
        assert_eq!((day("1970-01-01").0, day("2026-11-26").0), (0, 20_783));
        for text in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-01",
            "1969-12-31",
            "2026-10-01-",
            "+026-10-01",
            "",
        ] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
        assert!(day("2026-11-28").is_weekend() && day("2026-11-29").is_weekend());
        assert!(!day("2026-11-27").is_weekend() && !day("2026-11-30").is_weekend());
    }

    #[test]
    fn a_day_begins_and_ends_at_midnight_in_china() {
        let day = day("2026-11-26");
        assert_eq!(Day::of(day.begins_ms()), day);
        assert_eq!(Day::of(day.begins_ms() - 1).next(), day);
        assert_eq!(Day::of(day.ends_ms()), day);
        assert_eq!(Day::of(day.ends_ms() + 1), day.next());
        // 2026-11-26T00:00:00+08:00
        assert_eq!(day.begins_ms(), 1_795_622_400_000);
    }

    #[test]
    fn deadlines_count_working_days_with_holidays_and_worked_weekends() {
        // the National Day week of 2026 as a city might announce it: off from the 1st to the 7th, Saturday the 10th worked
        let off = ["2026-10-01", "2026-10-02", "2026-10-05", "2026-10-06", "2026-10-07"].map(day).to_vec();
        let days = WorkingDays { holidays: off, worked_weekends: vec![day("2026-10-10")] };
        days.check().unwrap();
        let noon = |text: &str| day(text).begins_ms() + 12 * 3_600_000;
        let due = |from: &str, n| Day::of(days.deadline_ms(noon(from), n)).to_string();
        assert_eq!(due("2026-09-29", 1), "2026-09-30");
        assert_eq!(due("2026-09-30", 1), "2026-10-08");
        assert_eq!(due("2026-09-30", 3), "2026-10-10", "the worked Saturday counts");
        assert_eq!(due("2026-09-30", 4), "2026-10-12");
        assert_eq!(due("2026-10-03", 1), "2026-10-08", "begun on a day off");
        assert_eq!(days.deadline_ms(noon("2026-09-29"), 1), day("2026-09-30").ends_ms());
    }

    #[test]
    fn a_calendar_that_says_nothing_is_refused() {
        let check = |holidays: &[&str], worked: &[&str]| {
            let of = |days: &[&str]| days.iter().map(|d| day(d)).collect();
            WorkingDays { holidays: of(holidays), worked_weekends: of(worked) }.check()
        };
        assert!(check(&["2026-10-01", "2026-10-02"], &["2026-10-10"]).is_ok());
        assert!(check(&["2026-10-02", "2026-10-01"], &[]).is_err());
        assert!(check(&["2026-10-01", "2026-10-01"], &[]).is_err());
        assert!(check(&["2026-10-03"], &[]).is_err(), "a Saturday");
        assert!(check(&[], &["2026-10-08"]).is_err(), "a Thursday");
    }
}
