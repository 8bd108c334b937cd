//! Amounts in arguments: bytes and times, with their units.

/// A number of bytes: `4096`, `512K`, `64M`, `2G`, `1T`; also with `iB` behind it. Units are powers of
/// 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("bytes are a number, with K, M, G or T behind it".to_owned()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(0) => Err("it has to be at least 1".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("bytes are a number, with K, M, G or T behind it".to_owned()),
    }
}

/// A time in microseconds: `90s`, `15m`, `36h`, `14d`, `8w`.
pub fn duration(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("a time is a number, with s, m, h, d or w behind it".to_owned()),
    };
    let micros =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds * 1_000_000));
    micros.ok_or_else(|| "a time is a number, with s, m, h, d or w behind it".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_binary_units_and_nonsense_is_refused() {
        let read = ["1", "4096", "512K", "64MiB", "2g", "1T"].map(|text| bytes(text).unwrap());
        assert_eq!(read, [1, 4096, 512 << 10, 64 << 20, 2 << 30, 1 << 40]);
        for text in
            ["", "K", "0", "-1", "1.5M", "1X", "1 M", "18446744073709551616", "17179869184G"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units_and_nonsense_is_refused() {
        let read = ["0s", "90s", "15m", "36h", "14d", "8w"].map(|text| duration(text).unwrap());
        let seconds = [0, 90, 900, 129_600, 1_209_600, 4_838_400];
        assert_eq!(read, seconds.map(|seconds| seconds * 1_000_000));
        for text in ["", "5", "h", "1.5h", "-1d", "1y", "1 d", "18446744073709551615w"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
