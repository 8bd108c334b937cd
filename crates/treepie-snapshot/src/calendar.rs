//! Microseconds since 1970 <-> days, weeks and months, in UTC, for names, messages and retention.

const SECOND_US: u64 = 1_000_000;
const DAY_S: u64 = 86_400;
/// 1 January 1970 was a Thursday: three days after a Monday.
const EPOCH_WEEKDAY: u64 = 3;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH_DAY: u64 = 719_468;
const ERA_DAYS: u64 = 146_097;

/// Year, month and day of a day since 1970, in the Gregorian calendar. Counted in eras of 400 years
/// that begin in March, so that the leap day is the last one of its year.
#[must_use]
pub fn date(day: u64) -> (u64, u64, u64) {
    let day = day + EPOCH_DAY;
    let (era, day_of_era) = (day / ERA_DAYS, day % ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day_of_month)
}

/// The day since 1970 of a date from 1970 on; none if there is no such date.
#[must_use]
pub fn day_of(year: u64, month: u64, day_of_month: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day_of_month == 0 {
        return None;
    }
    let (march_year, march_month) =
        if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (march_year / 400, march_year % 400);
    let day_of_year = (153 * march_month + 2) / 5 + day_of_month - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let day = (era * ERA_DAYS + day_of_era).checked_sub(EPOCH_DAY)?;
    (date(day) == (year, month, day_of_month)).then_some(day)
}

/// A part of time that retention counts. Equal numbers are the same one.
#[must_use]
pub fn hour(us: u64) -> u64 {
    us / SECOND_US / 3600
}

/// The day since 1970.
#[must_use]
pub fn day(us: u64) -> u64 {
    us / SECOND_US / DAY_S
}

/// The week, from Monday.
#[must_use]
pub fn week(us: u64) -> u64 {
    (day(us) + EPOCH_WEEKDAY) / 7
}

/// The month.
#[must_use]
pub fn month(us: u64) -> u64 {
    let (year, month, _) = date(day(us));
    year * 12 + month - 1
}

/// `20261124T215437Z`: sorts as the time does, and is a name.
#[must_use]
pub fn compact(us: u64) -> String {
    let ((year, month, day), second) = (date(day(us)), us / SECOND_US % DAY_S);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The time of a compact text, none if it is none.
#[must_use]
pub fn from_compact(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = &bytes[from..to];
        let value = |value: u64, byte: &u8| value * 10 + u64::from(byte - b'0');
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, value))
    };
    let day = day_of(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    let in_range = hour < 24 && minute < 60 && second < 60;
    in_range.then(|| (day * DAY_S + hour * 3600 + minute * 60 + second) * SECOND_US)
}

/// `2026-11-24 21:54:37.000250 UTC`, for people.
#[must_use]
pub fn readable(us: u64) -> String {
    let ((year, month, day), second) = (date(day(us)), us / SECOND_US % DAY_S);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = us % SECOND_US;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_up_to_2400_has_its_own_date_in_order() {
        let mut last = (1969, 12, 31);
        for day in 0..157_054 {
            let next = date(day);
            assert!(next > last, "{next:?} after {last:?}");
            assert_eq!(day_of(next.0, next.1, next.2), Some(day), "{next:?}");
            last = next;
        }
        assert_eq!(last, (2399, 12, 31));
        assert_eq!(date(11_016), (2000, 2, 29));
        for (year, month, day) in [(2023, 2, 29), (2100, 2, 29), (2024, 13, 1), (2024, 4, 31)] {
            assert_eq!(day_of(year, month, day), None);
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_months_with_the_first() {
        let at = |text| from_compact(text).unwrap();
        assert_eq!(week(at("20261123T000000Z")), week(at("20261129T235959Z")));
        assert_ne!(week(at("20261122T235959Z")), week(at("20261123T000000Z")));
        assert_eq!(month(at("20261101T000000Z")), month(at("20261130T235959Z")));
        assert_ne!(month(at("20261130T235959Z")), month(at("20261201T000000Z")));
    }

    #[test]
    fn compact_times_are_read_back_and_nonsense_is_refused() {
        let us = 1_700_000_000_000_000;
        assert_eq!(compact(us), "20231114T221320Z");
        assert_eq!(from_compact(&compact(us)), Some(us));
        assert_eq!(readable(us + 250), "2023-11-14 22:13:20.000250 UTC");
        for text in
            ["", "20231114T221320", "20231114 221320Z", "2023111４T221320Z", "20231114T246060Z"]
        {
            assert_eq!(from_compact(text), None, "{text}");
        }
        // No number of microseconds makes it panic.
        assert!(compact(u64::MAX).ends_with('Z'));
    }
}
