//! Whether a client wants a file, and which part of it (RFC 9110, sections 13 and 14).

use std::time::{Duration, SystemTime};

use waft_http1::RequestHead;

/// What a request says about the state of what it asks for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) is_head: bool,
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<String>,
    if_unmodified_since: Option<String>,
    if_range: Option<String>,
    range: Option<String>,
}

impl Wanted {
    pub(super) fn of(head: &RequestHead) -> Self {
        let text = |name: &str| -> Option<String> {
            let lines: Vec<_> = head.fields_named(name).map(|value| String::from_utf8_lossy(value)).collect();
            (!lines.is_empty()).then(|| lines.join(","))
        };
        Self {
            is_head: head.is_head(),
            if_match: text("if-match"),
            if_none_match: text("if-none-match"),
            if_modified_since: text("if-modified-since"),
            if_unmodified_since: text("if-unmodified-since"),
            if_range: text("if-range"),
            range: text("range").filter(|_| !head.is_head()),
        }
    }
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// A condition does not hold: 412.
    Failed,
    /// The bytes from the first to the last of these.
    Range(u64, u64),
    /// The client has it already: 304.
    Unchanged,
    /// No byte of it is in the range: 416.
    Unsatisfiable,
    Whole,
}

pub(super) fn judge(wanted: &Wanted, etag: &str, modified: Option<SystemTime>, size: u64) -> Judged {
    if let Some(list) = &wanted.if_match {
        if !lists(list, etag, true) {
            return Judged::Failed;
        }
    } else if let Some(date) = wanted.if_unmodified_since.as_deref().and_then(date)
        && modified.is_some_and(|modified| whole_seconds(modified) > date)
    {
        return Judged::Failed;
    }
    if let Some(list) = &wanted.if_none_match {
        if lists(list, etag, false) {
            return Judged::Unchanged;
        }
    } else if let Some(date) = wanted.if_modified_since.as_deref().and_then(date)
        && modified.is_some_and(|modified| whole_seconds(modified) <= date)
    {
        return Judged::Unchanged;
    }
    let Some(range) = &wanted.range else { return Judged::Whole };
    if wanted.if_range.as_deref().is_some_and(|condition| !is_same(condition, etag, modified)) {
        return Judged::Whole;
    }
    part(range, size)
}

/// The part of a file that a range means. Several parts, and what cannot be understood, are answered with the whole.
fn part(range: &str, size: u64) -> Judged {
    let Ok(parsed) = http_range_header::parse_range_header(range) else { return Judged::Whole };
    if parsed.ranges.len() != 1 {
        return Judged::Whole;
    }
    match parsed.validate(size).ok().as_deref() {
        Some([range]) => Judged::Range(*range.start(), *range.end()),
        _ => Judged::Unsatisfiable,
    }
}

/// Whether a list of entity tags holds `etag`. Mongrel2 wrote them without quotation marks, and clients kept them so.
fn lists(list: &str, etag: &str, strongly: bool) -> bool {
    list.split(',').map(str::trim).any(|item| {
        let (item, is_weak) = item.strip_prefix("W/").map_or((item, false), |item| (item, true));
        item == "*" || (!(strongly && is_weak) && bare(item) == bare(etag))
    })
}

fn bare(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag)
}

/// Whether a file is still the one of which a client has a part.
fn is_same(condition: &str, etag: &str, modified: Option<SystemTime>) -> bool {
    match date(condition) {
        Some(date) => modified.is_some_and(|modified| whole_seconds(modified) == date),
        None => !condition.starts_with("W/") && bare(condition.trim()) == bare(etag),
    }
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

/// Dates in headers have whole seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"1a-7\"";

    fn check(fields: &[(&str, &str)], expected: Judged) {
        let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
        fields.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let parsed = waft_http1::parse_request(text.as_bytes(), &waft_http1::HeadLimits::default());
        let Ok(waft_http1::Parsed::Complete { head, .. }) = parsed else { panic!("{text}") };
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        assert_eq!(judge(&Wanted::of(&head), ETAG, Some(modified), 100), expected, "{fields:?}");
    }

    const AT: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const BEFORE: &str = "Tue, 14 Nov 2023 22:13:19 GMT";

    #[test]
    fn conditions_are_judged_in_their_order() {
        check(&[], Judged::Whole);
        check(&[("If-None-Match", ETAG)], Judged::Unchanged);
        check(&[("If-None-Match", "1a-7")], Judged::Unchanged);
        check(&[("If-None-Match", "\"x\", W/\"1a-7\"")], Judged::Unchanged);
        check(&[("If-None-Match", "*")], Judged::Unchanged);
        check(&[("If-None-Match", "\"x\""), ("If-Modified-Since", AT)], Judged::Whole);
        check(&[("If-Modified-Since", AT)], Judged::Unchanged);
        check(&[("If-Modified-Since", BEFORE)], Judged::Whole);
        check(&[("If-Modified-Since", "nonsense")], Judged::Whole);
        check(&[("If-Match", ETAG)], Judged::Whole);
        check(&[("If-Match", "W/\"1a-7\"")], Judged::Failed);
        check(&[("If-Match", "\"x\"")], Judged::Failed);
        check(&[("If-Unmodified-Since", AT)], Judged::Whole);
        check(&[("If-Unmodified-Since", BEFORE)], Judged::Failed);
        check(&[("If-Match", ETAG), ("If-Unmodified-Since", BEFORE)], Judged::Whole);
    }

    #[test]
    fn one_range_is_served_and_several_are_not() {
        check(&[("Range", "bytes=0-9")], Judged::Range(0, 9));
        check(&[("Range", "bytes=90-")], Judged::Range(90, 99));
        check(&[("Range", "bytes=-10")], Judged::Range(90, 99));
        check(&[("Range", "bytes=90-1000")], Judged::Range(90, 99));
        check(&[("Range", "bytes=100-")], Judged::Unsatisfiable);
        check(&[("Range", "bytes=0-1,5-6")], Judged::Whole);
        check(&[("Range", "lines=0-9")], Judged::Whole);
        check(&[("Range", "bytes=0-9"), ("If-Range", ETAG)], Judged::Range(0, 9));
        check(&[("Range", "bytes=0-9"), ("If-Range", "\"x\"")], Judged::Whole);
        check(&[("Range", "bytes=0-9"), ("If-Range", AT)], Judged::Range(0, 9));
        check(&[("Range", "bytes=0-9"), ("If-Range", BEFORE)], Judged::Whole);
        check(&[("Range", "bytes=0-9"), ("If-None-Match", ETAG)], Judged::Unchanged);
    }
}
