//! Which events an endpoint wants.

/// Longest event type in bytes.
pub const TYPE_MAX: usize = 256;

/// Whether a text is an event type: words of letters, digits, `_` and `-`, joined by dots.
pub fn is_event_type(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    text.len() <= TYPE_MAX && text.split('.').all(word)
}

/// Whether a text is a pattern for event types: a type, one that ends with `.*`, or `*`.
pub fn is_pattern(text: &str) -> bool {
    text == "*" || is_event_type(text.strip_suffix(".*").unwrap_or(text))
}

/// Whether one of the patterns fits. No patterns fit all types, except for waft's own, which must be asked for by name.
pub fn wants(patterns: &[String], kind: &str) -> bool {
    if patterns.is_empty() {
        return !is_own(kind);
    }
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some("") => !is_own(kind),
        Some(prefix) => kind.starts_with(prefix) && kind.len() > prefix.len(),
        None => pattern == kind,
    })
}

/// Whether it is an event about the webhooks themselves.
pub fn is_own(kind: &str) -> bool {
    kind.starts_with(OWN)
}

/// What the types of waft's own events begin with.
pub const OWN: &str = "webhooks.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_types_and_whole_words_below_them() {
        let check = |patterns: &[&str], kind: &str, expected: bool| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            assert!(patterns.iter().all(|pattern| is_pattern(pattern)));
            assert_eq!(wants(&patterns, kind), expected, "{patterns:?} {kind}");
        };
        check(&[], "order.paid", true);
        check(&[], "webhooks.endpoint.disabled", false);
        check(&["*"], "order.paid", true);
        check(&["*"], "webhooks.endpoint.disabled", false);
        check(&["webhooks.*"], "webhooks.endpoint.disabled", true);
        check(&["order.*"], "order.paid", true);
        check(&["order.*"], "order.paid.twice", true);
        check(&["order.*"], "order", false);
        check(&["order.*"], "orders.paid", false);
        check(&["a", "order.paid"], "order.paid", true);
        check(&["order.paid"], "order.paid.twice", false);
        for wrong in ["", ".", "a.", ".a", "a b", "a.*.b", "*.a", "**", "ä"] {
            assert!(!is_pattern(wrong), "{wrong}");
        }
    }
}
