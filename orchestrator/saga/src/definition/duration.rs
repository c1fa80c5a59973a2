//! Durations as people write them: `500ms`, `5s`, `20m`, `2h`, `7d`; ladders repeat them: `1s x 5`.

/// Nothing waits longer than a leap year: a longer time is a typing error, and sums of times stay far from overflow.
const LONGEST_MS: u64 = 366 * 24 * 3_600_000;

/// Most rungs of a ladder.
const MAX_RUNGS: usize = 200;

/// Milliseconds of a duration.
///
/// # Errors
/// A text for people.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit_ms = match &text[digits..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let number = text[..digits].parse::<u64>().ok();
    match number.zip(unit_ms).map(|(number, unit)| number.checked_mul(unit)) {
        Some(Some(ms)) if (1..=LONGEST_MS).contains(&ms) => Ok(ms),
        Some(_) => Err(format!("`{text}` is out of range: 1ms to 366d")),
        None => Err(format!("`{text}` is not a duration: expected a whole number and ms, s, m, h or d, such as `20m`")),
    }
}

/// Seconds as a duration.
///
/// # Errors
/// A text for people.
pub(crate) fn of_seconds(seconds: i64) -> Result<u64, String> {
    let ms = u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000));
    ms.filter(|ms| (1..=LONGEST_MS).contains(ms)).ok_or_else(|| format!("{seconds} s is out of range: 1 s to 366 d"))
}

/// Waits of one rung: `30s` or `30s x 10`.
///
/// # Errors
/// A text for people.
pub(crate) fn parse_rung(text: &str) -> Result<Vec<u64>, String> {
    let Some((duration, times)) = text.split_once(" x ") else { return Ok(vec![parse(text)?]) };
    let times = times.trim().parse().ok().filter(|times| (1..=MAX_RUNGS).contains(times));
    let times = times.ok_or_else(|| format!("`{text}`: expected a number of times from 1 to {MAX_RUNGS}"))?;
    Ok(vec![parse(duration)?; times])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_and_nonsense_is_not() {
        assert_eq!(parse("500ms"), Ok(500));
        assert_eq!(parse("20m"), Ok(1_200_000));
        assert_eq!(parse("2h"), Ok(7_200_000));
        assert_eq!(parse("366d"), Ok(LONGEST_MS));
        assert_eq!(parse_rung("1s x 3"), Ok(vec![1_000; 3]));
        for bad in ["", "5", "s", "0s", "-1s", "1.5s", "367d", "99999999999999999999d", "18446744073709551615d", "5 s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse_rung("1s x 0").is_err());
        assert!(of_seconds(-1).is_err() && of_seconds(i64::MAX).is_err());
        assert_eq!(of_seconds(1_200), Ok(1_200_000));
    }
}
