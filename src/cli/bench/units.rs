//! How sizes, times and rates are written on the command line and in reports.

use std::time::Duration;

/// Decimal and binary units of bytes, as they are written; longer ones first.
const BYTE_UNITS: [(&str, f64); 7] = [
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("b", 1.0),
];
const COUNT_UNITS: [(&str, f64); 2] = [("k", 1e3), ("m", 1e6)];
const TIME_UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];

/// So many records, or so many bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Records(f64),
    Bytes(f64),
}

/// Sizes from the smallest to the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) min: u32,
    pub(super) max: u32,
}

/// `65536`, `64KiB`, `1.5GB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let size = number_with(text, &BYTE_UNITS).or_else(|| number(text));
    match size {
        Some(size) if (1.0..=1e15).contains(&size) => Ok(size as u64),
        _ => Err("use a size of at least one byte, such as 65536, 64KiB or 1.5GB".to_owned()),
    }
}

/// `100`, or `100-1000`.
pub(super) fn sizes(text: &str) -> Result<Sizes, String> {
    let wrong = || "use a size such as 100 or 1KiB, or a range such as 100-1000".to_owned();
    let one = |text: &str| u32::try_from(bytes(text).map_err(|_| wrong())?).map_err(|_| wrong());
    let (min, max) = match text.split_once('-') {
        Some((min, max)) => (one(min)?, one(max)?),
        None => (one(text)?, one(text)?),
    };
    if min <= max { Ok(Sizes { min, max }) } else { Err(format!("{min} is more than {max}")) }
}

/// Records (`50000`, `50k`) or bytes (`20MiB`); for a rate, `/s` may stand behind it.
pub(super) fn amount(text: &str) -> Result<Amount, String> {
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let amount = number_with(bare, &BYTE_UNITS)
        .map(Amount::Bytes)
        .or_else(|| number_with(bare, &COUNT_UNITS).or_else(|| number(bare)).map(Amount::Records));
    match amount {
        Some(Amount::Records(amount) | Amount::Bytes(amount)) if !(1e-3..=1e15).contains(&amount) => None,
        amount => amount,
    }
    .ok_or_else(|| "use records, such as 50000 or 50k, or bytes, such as 20MiB".to_owned())
}

/// `10`, `10s`, `500ms`, `2min`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = number_with(text, &TIME_UNITS).or_else(|| number(text));
    match seconds {
        Some(seconds) if (0.0..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("use a time such as 10s, 500ms or 2min".to_owned()),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn number_with(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.to_ascii_lowercase();
    units.iter().find_map(|(unit, factor)| Some(number(text.strip_suffix(unit)?.trim_end())? * factor))
}

/// A duration with three figures: `1.23 ms`.
pub(super) fn time(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        ..1e3 => (ns, "ns"),
        ..1e6 => (ns / 1e3, "us"),
        ..1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", figures(value))
}

/// Three figures of a number.
pub(super) fn figures(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Bytes, or bytes a second, in millions: `532.1 MB`.
pub(super) fn megabytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(bytes("100"), Ok(100));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1.5 GB"), Ok(1_500_000_000));
        for bad in ["", "0", "-1", "KiB", "1e400", "1XB", "nan"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(sizes("100-1KiB"), Ok(Sizes { min: 100, max: 1_024 }));
        assert!(sizes("1000-100").is_err() && sizes("-").is_err());
    }

    #[test]
    fn an_amount_is_records_unless_it_says_bytes() {
        assert_eq!(amount("50000"), Ok(Amount::Records(50_000.0)));
        assert_eq!(amount("50k/s"), Ok(Amount::Records(50_000.0)));
        assert_eq!(amount("2MB/s"), Ok(Amount::Bytes(2e6)));
        assert!(amount("fast").is_err() && amount("0").is_err());
    }

    #[test]
    fn times_are_read_and_written_with_units() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2min"), Ok(Duration::from_mins(2)));
        assert!(duration("soon").is_err());
        let shown: Vec<_> = [999, 1_500, 12_345_678, 3_000_000_000].map(time).into();
        assert_eq!(shown, ["999 ns", "1.50 us", "12.3 ms", "3.00 s"]);
    }
}
