use waft_websocket::deflate::{Compressors, Decompressor};

const LIMIT: u64 = 64 << 10;

/// Decompresses a message that comes in two pieces; nothing if it is none.
fn decompress(bits: u8, message: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut decompressor = Decompressor::new(bits);
    let mut out = Vec::new();
    let (first, second) = message.split_at(cut % (message.len() + 1));
    for piece in [first, second] {
        let done = decompressor.decompress(piece, LIMIT - out.len() as u64, LIMIT, &mut out);
        assert!(out.len() as u64 <= LIMIT);
        done.ok()?;
    }
    let done = decompressor.finish(LIMIT - out.len() as u64, LIMIT, &mut out);
    assert!(out.len() as u64 <= LIMIT);
    done.ok()?;
    Some(out)
}

fn target(input: &[u8]) {
    let [how, cut, content @ ..] = input else { return };
    let (bits, cut) = (9 + how % 7, usize::from(*cut));
    let whole = decompress(bits, content, 0);
    assert_eq!(decompress(bits, content, cut), whole, "the cut makes no difference");
    let mut compressors = Compressors::default();
    let mut compressed = Vec::new();
    if compressors.for_window(bits).is_some_and(|compressor| compressor.compress(content, &mut compressed)) {
        assert_eq!(decompress(bits, &compressed, cut).as_deref(), Some(content));
    }
}
#[test]
fn all() {
    let mut seed = 1u64;
    for round in 0..30000u64 {
        let mut bytes = Vec::new();
        for _ in 0..(round % 60) {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            bytes.push((seed >> 33) as u8 & if round % 3 == 0 { 3 } else { 255 });
        }
        target(&bytes);
    }
    for f in std::fs::read_dir("../../fuzz/corpus/websocket_deflate").unwrap() {
        target(&std::fs::read(f.unwrap().path()).unwrap());
    }
}
