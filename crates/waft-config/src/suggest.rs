//! The nearest known name.

/// The name among `known` that `name` was probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (name.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|known| (distance(name, known), known))
        .filter(|(d, _)| *d <= far)
        .min()
        .map(|(_, known)| known)
}

/// Turns what serde says of an unknown field into a sentence with a way out; leaves the rest alone.
pub(crate) fn improve(message: &str) -> String {
    let message = message.trim_end();
    let mut parts = message.split('`');
    if parts.next() != Some("unknown field ") {
        return message.to_owned();
    }
    let name = parts.next().unwrap_or_default();
    let known: Vec<&str> = parts.skip(1).step_by(2).collect();
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("unknown key `{name}`; did you mean `{meant}`?"),
        None => format!("unknown key `{name}`; known are {}", known.join(", ")),
    }
}

/// Insertions, deletions and replacements that lead from `a` to `b`, and a swap of neighbours as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], n: usize| row.get(n).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, j) + usize::from(x != y);
            let mut best = replaced.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let known = ["listen", "shards", "client_max", "drain_timeout"];
        for (name, expected) in [
            ("listne", Some("listen")),
            ("shard", Some("shards")),
            ("clientmax", Some("client_max")),
            ("drain-timeout", Some("drain_timeout")),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name:?}");
        }
    }

    #[test]
    fn unknown_fields_are_told_with_a_way_out() {
        for (message, expected) in [
            ("unknown field `ab`, expected `abc` or `x`", "unknown key `ab`; did you mean `abc`?"),
            ("unknown field `ab`, expected one of `uvw`, `xyz`", "unknown key `ab`; known are uvw, xyz"),
            ("invalid type: boolean", "invalid type: boolean"),
        ] {
            assert_eq!(improve(message), expected);
        }
    }
}
