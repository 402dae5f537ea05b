//! Request headers that tell the origin about the proxy: `Grip-Feature` and `Grip-Last` (GRIP sections 3.2 and 3.3).

use crate::header::parse_values;

/// Name of the header that lists what the proxy can do.
pub const FEATURE: &str = "Grip-Feature";

/// Value of [`FEATURE`], in the order origins know.
pub const FEATURES: &str = "status, session, link:next, link:gone, filter:skip-self, filter:skip-users, \
                            filter:require-sub, filter:build-id, filter:var-subst, filter:http-check, \
                            filter:http-modify";

/// Name of the header that gives a listener's position in one channel.
pub const LAST: &str = "Grip-Last";

/// Value of a [`LAST`] header: what a listener of `channel` saw last.
///
/// The name is written as it is, as the header has no way to quote it; the id is quoted when it needs to be. `None` if
/// either has a byte that cannot be written to a header.
#[must_use]
pub fn last(channel: &str, id: &str) -> Option<String> {
    if channel.chars().chain(id.chars()).any(char::is_control) {
        return None;
    }
    let plain = id.trim() == id && !id.contains([';', ',', '"', '\\']);
    if plain {
        return Some(format!("{channel}; last-id={id}"));
    }
    let escaped = id.replace('\\', r"\\").replace('"', "\\\"");
    Some(format!("{channel}; last-id=\"{escaped}\""))
}

/// The channels and ids of all [`LAST`] headers among `fields`. Pieces without a name or an id are skipped.
pub fn parse_last<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pieces = fields.filter(|(name, _)| name.eq_ignore_ascii_case(LAST)).flat_map(|(_, value)| parse_values(value));
    pieces
        .filter(|piece| !piece.value.is_empty())
        .filter_map(|piece| Some((text(&piece.value), text(piece.param("last-id")?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_features_are_one_line_in_the_known_order() {
        assert_eq!(
            FEATURES,
            "status, session, link:next, link:gone, filter:skip-self, filter:skip-users, filter:require-sub, \
             filter:build-id, filter:var-subst, filter:http-check, filter:http-modify"
        );
    }

    #[test]
    fn positions_are_written_as_origins_read_them() {
        assert_eq!(last("fruit", "apple1").as_deref(), Some("fruit; last-id=apple1"));
        assert_eq!(last("fruit", "a,b;\"c\\").as_deref(), Some(r#"fruit; last-id="a,b;\"c\\""#));
        assert_eq!(last("fruit\r\nX: y", "1"), None);
        assert_eq!(last("fruit", "1\n"), None);
    }

    #[test]
    fn positions_are_read_from_all_lines() {
        let fields: [(&str, &[u8]); 4] = [
            ("grip-last", b"a; last-id=1, b; last-id=2"),
            ("X", b"x; last-id=9"),
            ("Grip-Last", b"c"),
            (LAST, b"d;Last-Id=3"),
        ];
        let expected = [("a", "1"), ("b", "2"), ("d", "3")].map(|(n, i)| (n.to_owned(), i.to_owned()));
        assert_eq!(parse_last(fields.into_iter()), expected);
    }

    proptest! {
        #[test]
        fn a_written_position_is_read_back(channel in "[a-z][a-z0-9:/-]{0,10}", id in "[ -~é]{1,12}") {
            let line = last(&channel, &id).unwrap();
            let found = parse_last([(LAST, line.as_bytes())].into_iter());
            prop_assert_eq!(found, vec![(channel, id)]);
        }
    }
}
