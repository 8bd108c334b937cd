//! Moments as text, in UTC.

/// A moment, given in microseconds since 1970, as `2024-02-29 23:59:59.000001`.
pub fn utc(time_us: u64) -> String {
    let (seconds, micros) = (time_us / 1_000_000, time_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Year, month and day of a day that is counted from 1 January 1970.
///
/// Counts from 1 March of year 0 instead: then the leap day ends a year, and 153 days are always
/// five months (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_calendars_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000000");
        assert_eq!(utc(951_782_400_000_000), "2000-02-29 00:00:00.000000");
        assert_eq!(utc(951_868_800_000_000), "2000-03-01 00:00:00.000000");
        assert_eq!(utc(1_709_251_199_000_001), "2024-02-29 23:59:59.000001");
        assert_eq!(utc(4_107_542_399_999_999), "2100-02-28 23:59:59.999999");
        assert_eq!(utc(4_107_542_400_000_000), "2100-03-01 00:00:00.000000");
    }
}
