//! ZHTTP packets of either encoding.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waft_zhttp::{Encoding, Exchange, Packet, PacketError};

fuzz_target!(|input: &[u8]| {
    let wire = Bytes::copy_from_slice(input);
    match Packet::decode(&wire) {
        Ok((packet, encoding)) => {
            let written = packet.encode(encoding, None);
            let (again, _) = Packet::decode(&written).unwrap();
            if encoding == Encoding::Tnetstring && packet.user_data.is_none() {
                assert_eq!(again, packet);
            }
            // As the first packet of an exchange, and as the next one.
            let seq = packet.ids.as_slice().first().and_then(|id| id.seq);
            let now = std::time::Instant::now();
            if let Ok(mut exchange) = Exchange::accept(now, 1_000, &packet, seq, false) {
                let _ = exchange.receive(now, seq, &packet);
                exchange.grant();
            }
        }
        Err(PacketError::Field { salvage, .. }) => assert!(salvage.id.is_none_or(|id| id.len() <= input.len())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
