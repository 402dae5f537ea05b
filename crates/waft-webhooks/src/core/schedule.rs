//! When a delivery is tried again.

/// The pauses before each try, in milliseconds: those of Standard Webhooks, about three days in all.
pub const STANDARD: [u64; 10] =
    [0, 5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 50_400_000, 72_000_000, 86_400_000];

/// Longest pause that a receiver may ask for, in milliseconds: a day.
pub const RETRY_AFTER_MAX: u64 = 86_400_000;

/// Part of a pause that it may become shorter or longer by, so that failures of one moment do not come back together.
const JITTER: f64 = 0.1;

/// The pause before the next try after `failed` tries, in milliseconds; none if that was the last. `random` lies in
/// `0.0..1.0`. A receiver that asked for a longer pause gets it, one that asked for a shorter one does not.
pub fn pause(schedule: &[u64], failed: u16, retry_after: Option<u64>, random: f64) -> Option<u64> {
    let base = *schedule.get(usize::from(failed))?;
    let jittered = base as f64 * (1.0 + JITTER * (2.0 * random.clamp(0.0, 1.0) - 1.0));
    Some((jittered as u64).max(retry_after.unwrap_or(0).min(RETRY_AFTER_MAX)))
}

/// What a Retry-After field asks for, in milliseconds from `now` in Unix milliseconds: seconds, or a date.
pub fn retry_after(value: &[u8], now: u64) -> Option<u64> {
    let text = str::from_utf8(value).ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse::<u64>().ok()?.saturating_mul(1_000).min(RETRY_AFTER_MAX));
    }
    Some(parse_date(text)?.saturating_mul(1_000).saturating_sub(now).min(RETRY_AFTER_MAX))
}

/// An HTTP date (RFC 9110 section 5.6.7, the preferred form) as Unix seconds.
fn parse_date(text: &str) -> Option<u64> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let mut time = words.next()?.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    let valid = (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second < 61;
    (valid && words.next() == Some("GMT"))
        .then(|| days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date: years begin in March, so that the leap day is the last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    (year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = 784_111_777_000;
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(retry_after(text.as_bytes(), now), expected, "{text}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120_000));
        check("999999999999", Some(RETRY_AFTER_MAX));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000));
        check("Sun, 06 Nov 1993 08:50:37 GMT", Some(0));
        check("Tue, 29 Feb 2000 00:00:00 GMT", Some(RETRY_AFTER_MAX));
        for text in ["-1", "soon", "Sun, 06 Nov 1994", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"]
        {
            check(text, None);
        }
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_date("Tue, 29 Feb 2000 00:00:00 GMT"), Some(951_782_400));
    }

    proptest! {
        #[test]
        fn a_pause_is_near_its_place_in_the_schedule(failed in 0u16..12, random in 0.0..1.0f64, asked: Option<u64>) {
            match (pause(&STANDARD, failed, asked, random), STANDARD.get(usize::from(failed))) {
                (None, None) => {}
                (Some(pause), Some(base)) => {
                    let asked = asked.unwrap_or(0).min(RETRY_AFTER_MAX);
                    prop_assert!(pause >= asked);
                    prop_assert!(pause as f64 >= *base as f64 * 0.9 - 1.0);
                    prop_assert!(pause == asked || pause as f64 <= *base as f64 * 1.1 + 1.0);
                }
                (pause, base) => prop_assert!(false, "{pause:?} {base:?}"),
            }
        }

        #[test]
        fn no_field_panics(value in proptest::collection::vec(any::<u8>(), 0..40), now: u64) {
            retry_after(&value, now);
        }
    }
}
