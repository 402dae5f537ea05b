use proptest::prelude::*;

use super::*;

type Meta = [(&'static str, &'static str)];

fn pairs(meta: &Meta) -> Vec<(String, String)> {
    meta.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

const CHANNELS: [ChannelPosition<'_>; 3] = [
    ChannelPosition { name: "room", prev_id: Some("7") },
    ChannelPosition { name: "user", prev_id: Some("a") },
    ChannelPosition { name: "new", prev_id: None },
];

fn verdict(filter: &str, sub_meta: &Meta, pub_meta: &Meta) -> Verdict {
    let (sub_meta, pub_meta) = (pairs(sub_meta), pairs(pub_meta));
    let context = Context { sub_meta: &sub_meta, pub_meta: &pub_meta, channels: &CHANNELS };
    Filters::from_names([filter]).delivery(&context)
}

fn content(filters: &[&str], sub_meta: &Meta, text: &str) -> Result<String, String> {
    let sub_meta = pairs(sub_meta);
    let context = Context { sub_meta: &sub_meta, pub_meta: &[], channels: &CHANNELS };
    match Filters::from_names(filters.iter().copied()).content(&context, text.as_bytes()) {
        Ok(out) => Ok(String::from_utf8(out.into_owned()).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn names_are_kept_in_order_and_unknown_ones_ignored() {
    let filters = Filters::from_names(["skip-self", "Build-Id", "build-id", "x", "http-check", "var-subst"]);
    let expected = [Filter::SkipSelf, Filter::BuildId, Filter::HttpCheck, Filter::VarSubst];
    assert_eq!(filters.iter().collect::<Vec<_>>(), expected);
    assert!(filters.targets_response_content() && filters.targets_content() && filters.needs_network());
    assert!(!filters.is_empty());
    let none = Filters::from_names(["x"]);
    assert!(none.is_empty() && !none.targets_response_content() && !none.targets_content() && !none.needs_network());
    assert!(!Filters::from_names(["var-subst", "skip-self"]).targets_response_content());
    for filter in Filter::ALL {
        assert_eq!(Filters::from_names([filter.name()]).iter().collect::<Vec<_>>(), [filter]);
    }
    assert_eq!(Filters::from_names(["http-modify"; 9]).iter().count(), MAX_FILTERS);
    assert_eq!(size_of::<Filters>(), 4);
}

#[test]
fn delivery_follows_the_metadata_of_both_sides() {
    let alice: &Meta = &[("user", "alice")];
    let cases: &[(&str, &Meta, &Meta, Verdict)] = &[
        ("skip-self", alice, &[("sender", "alice")], Verdict::Drop),
        ("skip-self", alice, &[("sender", "bob")], Verdict::Send),
        ("skip-self", alice, &[], Verdict::Send),
        ("skip-self", &[("user", "")], &[("sender", "")], Verdict::Send),
        ("skip-self", &[], &[("sender", "alice")], Verdict::Send),
        ("skip-users", alice, &[("skip_users", "bob, alice ,eve")], Verdict::Drop),
        ("skip-users", alice, &[("skip_users", "alice2")], Verdict::Send),
        ("skip-users", &[("user", "")], &[("skip_users", ",")], Verdict::Send),
        ("require-sub", &[], &[("require_sub", "room")], Verdict::Send),
        ("require-sub", &[], &[("require_sub", "other")], Verdict::Drop),
        ("require-sub", &[], &[("require_sub", "")], Verdict::Send),
        ("require-sub", &[], &[], Verdict::Send),
        ("build-id", alice, &[("sender", "alice"), ("require_sub", "other")], Verdict::Send),
        ("http-check", alice, &[("sender", "alice")], Verdict::Send),
    ];
    for (filter, sub_meta, pub_meta, expected) in cases {
        assert_eq!(verdict(filter, sub_meta, pub_meta), *expected, "{filter} {sub_meta:?} {pub_meta:?}");
    }
}

#[test]
fn any_filter_that_says_drop_drops() {
    let meta = pairs(&[("user", "a"), ("sender", "a")]);
    let context = Context { sub_meta: &meta, pub_meta: &meta, channels: &[] };
    assert_eq!(Filters::from_names(["require-sub", "skip-self"]).delivery(&context), Verdict::Drop);
    assert_eq!(Filters::default().delivery(&context), Verdict::Send);
}

#[test]
fn event_ids_are_built_from_all_positions() {
    let plain: &Meta = &[("id_format", "%(room)s:%(user)s")];
    let hex: &Meta = &[("id_format", "%(room)s:%(user)s"), ("id_encoding", "hex")];
    let cases: &[(&Meta, &str, Result<&str, &str>)] = &[
        (plain, "id: %I\ndata: 50%%\n\n", Ok("id: 7:a\ndata: 50%\n\n")),
        (hex, "id: %I\n", Ok("id: 373a61\n")),
        (plain, r"%(a\)b\\)I", Ok(r"a)b\")),
        (hex, "%(az)I", Ok("617a")),
        (plain, "%()I.", Ok(".")),
        (&[("id_format", "%(new)s%%")], "%I", Ok("%")),
        (&[], "x", Err("no sub meta 'id_format'")),
        (&[("id_format", ""), ("id_encoding", "b64")], "x", Err("unsupported encoding: b64")),
        (&[("id_format", "ab%(gone)s")], "x", Err("No such variable 'gone' at position 2")),
        (&[("id_format", "%I")], "x", Err("Unknown directive 'I' at position 0")),
        (plain, "abc%s", Err("Unknown directive 's' at position 3")),
        (plain, "%\n", Err(r"Unknown directive '\n' at position 0")),
        (plain, "ab%(c", Err("Unterminated field starting at position 2")),
        (plain, r"ab%(c\", Err("Unterminated field starting at position 2")),
        (plain, "ab%(c)", Err("Expected directive after '%' at position 2")),
        (plain, "ab%", Err("Expected directive after '%' at position 2")),
    ];
    for (meta, text, expected) in cases {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(content(&["build-id"], meta, text), expected, "{meta:?} {text}");
    }
}

#[test]
fn variables_are_written_into_content() {
    let alice: &Meta = &[("user", "alice")];
    let cases: &[(&str, Result<&str, &str>)] = &[
        ("hello %(user)s", Ok("hello alice")),
        ("100%%", Ok("100%")),
        ("%(user)s%(user)s", Ok("alicealice")),
        ("x%(who)s", Err("No such variable 'who' at position 1")),
        ("x%I", Err("Unknown directive 'I' at position 1")),
        ("x%(user)I", Err("Unknown directive 'I' at position 1")),
        ("x%s", Err("Unknown directive 's' at position 1")),
    ];
    for (text, expected) in cases {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(content(&["var-subst"], alice, text), expected, "{text}");
    }
}

#[test]
fn content_filters_run_in_order_on_each_others_output() {
    let meta: &Meta = &[("id_format", "%(room)s"), ("user", "%%I")];
    assert_eq!(content(&["var-subst", "build-id"], meta, "%(user)s").unwrap(), "%I");
    let meta: &Meta = &[("id_format", "%(room)s"), ("user", "%I")];
    assert_eq!(content(&["var-subst", "build-id"], meta, "%(user)s").unwrap(), "7");
    assert!(content(&["build-id", "var-subst"], meta, "%(user)s").is_err());
}

#[test]
fn content_without_content_filters_is_not_copied() {
    let filters = Filters::from_names(["skip-self", "http-check"]);
    assert!(matches!(filters.content(&Context::default(), b"50%"), Ok(Cow::Borrowed(b"50%"))));
}

#[test]
fn a_field_that_never_ends_is_refused() {
    let text = format!("%({}", "x".repeat(MAX_ARGUMENT + 1));
    assert_eq!(content(&["var-subst"], &[], &text), Err("Field too long at position 0".to_owned()));
}

#[test]
fn prepared_content_must_agree_with_the_subscription() {
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&[], &[], true),
        (&["skip-self"], &[], true),
        (&["skip-self", "build-id", "http-check", "var-subst"], &["build-id", "var-subst"], true),
        (&["build-id", "var-subst"], &["var-subst", "build-id"], false),
        (&["build-id"], &[], false),
        (&[], &["build-id"], false),
        (&["skip-self"], &["skip-self"], false),
    ];
    for (subscription, message, expected) in cases {
        let message: Vec<String> = message.iter().map(|&name| name.to_owned()).collect();
        let filters = Filters::from_names(subscription.iter().copied());
        assert_eq!(filters.agrees(&message), *expected, "{subscription:?} {message:?}");
    }
    let text = Filters::from_names(["build-id", "skip-self", "var-subst"]).mismatch(&["c".to_owned()]);
    assert_eq!(text, "content filter mismatch: subscription=build-id,var-subst message=c");
}

proptest! {
    #[test]
    fn a_body_in_any_split_has_the_same_ids(text in r"[a%()I\\s]{0,30}", cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let sub_meta = pairs(&[("id_format", "%(room)s")]);
        let context = Context { sub_meta: &sub_meta, pub_meta: &[], channels: &CHANNELS };
        let run = |pieces: &[&[u8]]| -> Result<Vec<u8>, FilterError> {
            let mut build_id = BuildId::new(&context)?;
            let mut out = Vec::new();
            for piece in pieces {
                build_id.feed(piece, &mut out)?;
            }
            build_id.finish()?;
            Ok(out)
        };
        let whole = run(&[text.as_bytes()]);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        ends.push(text.len());
        ends.sort_unstable();
        let mut start = 0;
        let mut pieces = Vec::new();
        for end in ends {
            pieces.push(&text.as_bytes()[start..end]);
            start = end;
        }
        prop_assert_eq!(run(&pieces), whole);
    }

    #[test]
    fn any_template_and_content_is_read_without_panic(format: String, text: Vec<u8>) {
        let sub_meta = vec![("id_format".to_owned(), format)];
        let context = Context { sub_meta: &sub_meta, pub_meta: &[], channels: &CHANNELS };
        Filters::from_names(["build-id", "var-subst"]).content(&context, &text).ok();
    }

    #[test]
    fn escaped_text_comes_back_as_it_was(text: Vec<u8>) {
        let escaped: Vec<u8> = text.iter().flat_map(|&b| if b == b'%' { vec![b, b] } else { vec![b] }).collect();
        let filters = Filters::from_names(["var-subst"]);
        let found = filters.content(&Context::default(), &escaped).unwrap().into_owned();
        prop_assert_eq!(found, text);
    }
}
