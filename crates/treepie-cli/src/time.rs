//! Moments as text, in UTC.

use treepie_snapshot::calendar;

/// A moment, given in microseconds since 1970, as `2024-02-29 23:59:59.000001`.
pub fn utc(time_us: u64) -> String {
    let (seconds, micros) = (time_us / 1_000_000, time_us % 1_000_000);
    let (year, month, day) = calendar::date(seconds / 86_400);
    let second = seconds % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Reads a moment: RFC 3339, with a blank instead of the `T` if one likes; without a zone it is UTC; or
/// seconds since 1970.
pub fn parse(text: &str) -> Result<u64, String> {
    let moment = if text.contains(['-', ':']) { of_date(text) } else { of_seconds(text) };
    moment.ok_or_else(|| {
        "a moment is 2026-11-24T21:54:37Z, with +01:00 instead of the Z if need be, or seconds since \
         1970"
            .to_owned()
    })
}

fn of_seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(whole, 1..=12)?.checked_mul(1_000_000)?.checked_add(micros(fraction)?)
}

fn of_date(text: &str) -> Option<u64> {
    let (date, time) = text.split_at_checked(10)?;
    let [year, month, day] = parts(date, '-')?;
    if [year.len(), month.len(), day.len()] != [4, 2, 2] {
        return None;
    }
    let number = |text: &str| digits(text, 1..=4);
    let day = calendar::day_of(number(year)?, number(month)?, number(day)?)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let end = time.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let (time, zone) = time.split_at(end.unwrap_or(time.len()));
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = parts(time, ':')?.map(|text| digits(text, 2..=2));
    let (hour, minute, second) = (hour?, minute?, second?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local = day * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = i64::try_from(local).ok()?.checked_sub(offset_s(zone)?)?;
    u64::try_from(utc).ok()?.checked_mul(1_000_000)?.checked_add(micros(fraction)?)
}

/// Seconds that the clocks of a zone are ahead of UTC.
fn offset_s(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z" | " UTC") {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hour, minute) = rest.split_once(':')?;
    let (hour, minute) = (digits(hour, 2..=2)?, digits(minute, 2..=2)?);
    let seconds = i64::try_from(hour * 3600 + minute * 60).ok()?;
    (hour < 24 && minute < 60).then_some(sign * seconds)
}

/// The first six digits of a fraction of a second.
fn micros(fraction: &str) -> Option<u64> {
    digits(fraction, 1..=18)?;
    let six: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
    digits(&six, 6..=6)
}

fn parts(text: &str, separator: char) -> Option<[&str; 3]> {
    let mut parts = text.split(separator);
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

fn digits(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let fits = len.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
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

    #[test]
    fn moments_are_read_as_they_are_printed_and_as_the_standard_says() {
        for time_us in [0, 951_782_400_000_000, 1_709_251_199_000_001, 4_107_542_400_000_000] {
            assert_eq!(parse(&utc(time_us)), Ok(time_us));
            assert_eq!(parse(&calendar::readable(time_us)), Ok(time_us));
        }
        let same = 1_700_000_000_250_000;
        for text in [
            "2023-11-14T22:13:20.25Z",
            "2023-11-14t22:13:20.250000999z",
            "2023-11-14 22:13:20.25",
            "2023-11-14T23:13:20.25+01:00",
            "2023-11-14T16:43:20.25-05:30",
            "1700000000.25",
        ] {
            assert_eq!(parse(text), Ok(same), "{text}");
        }
        assert_eq!(parse("1700000000"), Ok(1_700_000_000_000_000));
    }

    #[test]
    fn nonsense_is_no_moment() {
        for text in [
            "",
            "now",
            "-1",
            "2023-11-14",
            "2023-02-29T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20X",
            "2023-11-14T22:13:20+1:00",
            "2023-11-14T22:13:20.Z",
            "1970-01-01T00:00:00+01:00",
            "23-11-14T22:13:20Z",
            "99999999999999999999",
            "1.-5",
            "２０２３-11-14T22:13:20Z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
