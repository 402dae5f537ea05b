//! Fields that are meant for one connection only (RFC 9110 section 7.6.1).

use crate::octets::list_members;

/// True for the fields that speak of this connection and are never passed on: Connection, Keep-Alive,
/// Proxy-Connection, TE, Trailer, Transfer-Encoding and Upgrade, in any case.
#[inline]
pub fn is_hop_by_hop(name: &str) -> bool {
    // The length is compared first: most fields are none of these.
    let candidates: &[&str] = match name.len() {
        2 => &["te"],
        7 => &["trailer", "upgrade"],
        10 => &["connection", "keep-alive"],
        16 => &["proxy-connection"],
        17 => &["transfer-encoding"],
        _ => return false,
    };
    candidates.iter().any(|candidate| candidate.eq_ignore_ascii_case(name))
}

/// The options that the Connection fields among `fields` list: `close`, `keep-alive`, `upgrade`, and names of further
/// fields which an intermediary drops.
pub fn connection_options<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
) -> impl Iterator<Item = &'a str> + Clone {
    fields
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| list_members(value))
        .filter_map(|option| str::from_utf8(option).ok())
}

/// Leaves out hop-by-hop fields, and those which Connection names if `names_fields` says that it names any.
pub(crate) fn end_to_end<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    names_fields: bool,
) -> impl Iterator<Item = (&'a str, &'a [u8])> + Clone {
    let all = fields.clone();
    fields.filter(move |(name, _)| {
        let named = || names_fields && connection_options(all.clone()).any(|option| option.eq_ignore_ascii_case(name));
        !is_hop_by_hop(name) && !named()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_names_are_known_in_any_case() {
        for name in ["Connection", "KEEP-ALIVE", "proxy-connection", "Te", "Trailer", "Transfer-Encoding", "upgrade"] {
            assert!(is_hop_by_hop(name), "{name}");
        }
        for name in ["", "Host", "TX", "Trailers", "Content-Length", "Grip-Hold", "Keep-Alivf"] {
            assert!(!is_hop_by_hop(name), "{name}");
        }
    }

    #[test]
    fn options_of_several_connection_fields_are_joined() {
        let fields: [(&str, &[u8]); 3] = [("Connection", b"close, X-One"), ("Host", b"a"), ("connection", b" ,X-Two,")];
        let options: Vec<&str> = connection_options(fields.into_iter()).collect();
        assert_eq!(options, ["close", "X-One", "X-Two"]);
    }
}
