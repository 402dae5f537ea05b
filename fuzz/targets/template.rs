//! Filters that read templates: the metadata and the content come from outside, the content in pieces of any size.
//! The input is the template, a zero byte, and the content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::filter::{BuildId, ChannelPosition, Context, Filters};

fn build(start: &BuildId, content: &[u8], step: usize) -> Result<Vec<u8>, ()> {
    let mut filter = start.clone();
    let mut out = Vec::new();
    for piece in content.chunks(step) {
        filter.feed(piece, &mut out).map_err(drop)?;
    }
    filter.finish().map_err(drop)?;
    Ok(out)
}

fuzz_target!(|input: &[u8]| {
    let zero = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let template = String::from_utf8_lossy(&input[..zero]).into_owned();
    let content = input.get(zero + 1..).unwrap_or_default();
    for encoding in [None, Some("hex")] {
        let mut meta = vec![("id_format".to_owned(), template.clone()), ("user".to_owned(), "ann".to_owned())];
        meta.extend(encoding.map(|encoding| ("id_encoding".to_owned(), encoding.to_owned())));
        let channels =
            [ChannelPosition { name: "a", prev_id: Some("7") }, ChannelPosition { name: "b", prev_id: None }];
        let context = Context { sub_meta: &meta, pub_meta: &meta, channels: &channels };
        if let Ok(start) = BuildId::new(&context) {
            let whole = build(&start, content, content.len().max(1));
            assert_eq!(build(&start, content, 1), whole);
            assert_eq!(build(&start, content, 2), whole);
        }
        for names in [&["build-id"][..], &["var-subst"], &["build-id", "var-subst"]] {
            let filters = Filters::from_names(names.iter().copied());
            let _ = (filters.delivery(&context), filters.content(&context, content));
        }
    }
});
