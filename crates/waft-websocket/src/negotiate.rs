//! Negotiation of permessage-deflate (RFC 7692 section 7.1), for both sides.
//!
//! A server holds a [`Policy`] and answers the first offer it can serve; a client holds an [`Offer`] and judges the
//! answer. Both arrive at the same [`Params`].

use std::fmt::Write as _;

use crate::extension::Extension;

/// The extension's name.
pub const NAME: &str = "permessage-deflate";
/// The largest LZ77 window, as a power of two; also what is meant where no number is given.
pub const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window our compressor can be held to. The protocol allows 8: an offer that insists on that is
/// declined, and a peer that answers so receives its messages uncompressed.
pub const WINDOW_BITS_MIN: u8 = 9;

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Params {
    /// The server begins each message with an empty window.
    pub server_no_context_takeover: bool,
    /// The client begins each message with an empty window.
    pub client_no_context_takeover: bool,
    /// Window of the server's compressor, 8 to 15 bits.
    pub server_max_window_bits: u8,
    /// Window of the client's compressor, 8 to 15 bits.
    pub client_max_window_bits: u8,
}

/// How a server answers offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Announce that no window of ours survives a message. Default true: one compressed frame then serves every
    /// listener, and a connection owns no compressor (90 to 310 KB each).
    pub server_no_context_takeover: bool,
    /// Ask the same of clients. Default true: an idle connection then owns no decompressor (about 40 KB).
    pub client_no_context_takeover: bool,
    /// The largest window we compress with, 9 to 15 bits. Default 15.
    pub server_max_window_bits: u8,
    /// The largest window clients may use, as far as they let themselves be told; 8 to 15 bits. Default 15.
    pub client_max_window_bits: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: WINDOW_BITS_MAX,
            client_max_window_bits: WINDOW_BITS_MAX,
        }
    }
}

impl Policy {
    /// Chooses the first offer that can be served, and the element to put into the answer's
    /// `Sec-WebSocket-Extensions`. Offers with unknown, repeated or wrong parameters are passed over (section 7.1).
    #[must_use]
    pub fn accept(&self, offers: &[Extension<'_>]) -> Option<(Params, String)> {
        offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| self.accept_one(offer))
    }

    fn accept_one(&self, offer: &Extension<'_>) -> Option<(Params, String)> {
        let asked = Asked::read(offer).ok()?;
        let server_max_window_bits =
            asked.server_bits.map_or(WINDOW_BITS_MAX, |bits| bits.unwrap_or(0)).min(self.server_max_window_bits);
        if server_max_window_bits < WINDOW_BITS_MIN {
            return None;
        }
        // A limit on the client's window may be answered only to a client that said it understands one.
        let client_max_window_bits = match asked.client_bits {
            Some(limit) => limit.unwrap_or(WINDOW_BITS_MAX).min(self.client_max_window_bits.max(8)),
            None => WINDOW_BITS_MAX,
        };
        let params = Params {
            server_no_context_takeover: self.server_no_context_takeover || asked.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover || asked.client_no_context_takeover,
            server_max_window_bits: server_max_window_bits.min(WINDOW_BITS_MAX),
            client_max_window_bits,
        };
        Some((params, params.to_element()))
    }
}

impl Params {
    /// The element of `Sec-WebSocket-Extensions` that states these parameters; windows of 15 bits go without saying.
    #[must_use]
    pub fn to_element(&self) -> String {
        let mut element = NAME.to_owned();
        if self.server_no_context_takeover {
            element.push_str("; server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            element.push_str("; client_no_context_takeover");
        }
        for (name, bits) in [("server", self.server_max_window_bits), ("client", self.client_max_window_bits)] {
            if bits < WINDOW_BITS_MAX {
                // Writing to a String cannot fail.
                let _infallible = write!(element, "; {name}_max_window_bits={bits}");
            }
        }
        element
    }
}

/// What a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Ask the server to begin each message with an empty window. Default true, which spares us a decompressor
    /// between messages.
    pub server_no_context_takeover: bool,
    /// Announce that our messages stand alone. Default true.
    pub client_no_context_takeover: bool,
    /// Limit the server's window to this many bits, 8 to 15. Default 15, no limit.
    pub server_max_window_bits: u8,
    /// Let the server limit our window. Default true.
    pub client_max_window_bits: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: WINDOW_BITS_MAX,
            client_max_window_bits: true,
        }
    }
}

/// An answer that does not fit the offer; the client fails the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// A parameter with a value it must not have, or without one it needs.
    #[error("parameter {name} has a wrong value")]
    BadValue {
        /// The parameter.
        name: String,
    },
    /// A parameter stands there twice.
    #[error("parameter {name} is repeated")]
    Repeated {
        /// The parameter.
        name: String,
    },
    /// A parameter that was not offered, or that nobody defined.
    #[error("parameter {name} was not offered")]
    Unexpected {
        /// The parameter.
        name: String,
    },
    /// The server keeps a window although it was asked not to.
    #[error("answer does not confirm {name}")]
    Unconfirmed {
        /// The parameter.
        name: &'static str,
    },
}

impl Offer {
    /// The element for the request's `Sec-WebSocket-Extensions`.
    #[must_use]
    pub fn to_element(&self) -> String {
        let params = Params {
            server_no_context_takeover: self.server_no_context_takeover,
            client_no_context_takeover: self.client_no_context_takeover,
            server_max_window_bits: self.server_max_window_bits,
            client_max_window_bits: WINDOW_BITS_MAX,
        };
        let mut element = params.to_element();
        if self.client_max_window_bits {
            element.push_str("; client_max_window_bits");
        }
        element
    }

    /// Judges the server's answer to this offer.
    ///
    /// # Errors
    /// The answer holds what was not offered, or lacks what was demanded.
    pub fn check(&self, answer: &Extension<'_>) -> Result<Params, NegotiationError> {
        let got = Asked::read(answer)?;
        if self.server_no_context_takeover && !got.server_no_context_takeover {
            return Err(NegotiationError::Unconfirmed { name: "server_no_context_takeover" });
        }
        let bits = |name: &str, bits: Option<Option<u8>>| match bits {
            None => Ok(None),
            Some(None) => Err(NegotiationError::BadValue { name: name.to_owned() }),
            Some(Some(bits)) => Ok(Some(bits)),
        };
        let server_bits = bits("server_max_window_bits", got.server_bits)?;
        if self.server_max_window_bits < WINDOW_BITS_MAX && server_bits.is_none() {
            return Err(NegotiationError::Unconfirmed { name: "server_max_window_bits" });
        }
        let server_max_window_bits = server_bits.unwrap_or(WINDOW_BITS_MAX);
        if server_max_window_bits > self.server_max_window_bits {
            return Err(NegotiationError::BadValue { name: "server_max_window_bits".to_owned() });
        }
        let client_bits = bits("client_max_window_bits", got.client_bits)?;
        if client_bits.is_some() && !self.client_max_window_bits {
            return Err(NegotiationError::Unexpected { name: "client_max_window_bits".to_owned() });
        }
        Ok(Params {
            server_no_context_takeover: got.server_no_context_takeover,
            client_no_context_takeover: got.client_no_context_takeover || self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits: client_bits.unwrap_or(WINDOW_BITS_MAX),
        })
    }
}

/// The four parameters as they stand in an offer or an answer. A window is absent, without a number, or with one.
#[derive(Default)]
struct Asked {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_bits: Option<Option<u8>>,
    client_bits: Option<Option<u8>>,
}

impl Asked {
    fn read(extension: &Extension<'_>) -> Result<Self, NegotiationError> {
        let mut asked = Self::default();
        for (name, value) in &extension.params {
            let value = value.as_deref();
            let repeated = match *name {
                "server_no_context_takeover" => set_flag(&mut asked.server_no_context_takeover, name, value)?,
                "client_no_context_takeover" => set_flag(&mut asked.client_no_context_takeover, name, value)?,
                // Only the client's window may come without a number, and only in an offer; the server's may not.
                "server_max_window_bits" => {
                    let bits = window_bits(name, value)?;
                    if bits.is_none() {
                        return Err(NegotiationError::BadValue { name: (*name).to_owned() });
                    }
                    asked.server_bits.replace(bits).is_some()
                }
                "client_max_window_bits" => asked.client_bits.replace(window_bits(name, value)?).is_some(),
                _ => return Err(NegotiationError::Unexpected { name: (*name).to_owned() }),
            };
            if repeated {
                return Err(NegotiationError::Repeated { name: (*name).to_owned() });
            }
        }
        Ok(asked)
    }
}

fn set_flag(flag: &mut bool, name: &str, value: Option<&str>) -> Result<bool, NegotiationError> {
    if value.is_some() {
        return Err(NegotiationError::BadValue { name: name.to_owned() });
    }
    Ok(std::mem::replace(flag, true))
}

fn window_bits(name: &str, value: Option<&str>) -> Result<Option<u8>, NegotiationError> {
    let Some(value) = value else { return Ok(None) };
    // No leading zeros (section 7.1.2.1): only the exact decimal forms are right.
    let bits = match value {
        "8" => 8,
        "9" => 9,
        "10" => 10,
        "11" => 11,
        "12" => 12,
        "13" => 13,
        "14" => 14,
        "15" => 15,
        _ => return Err(NegotiationError::BadValue { name: name.to_owned() }),
    };
    Ok(Some(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::parse_into;

    const LAX: Policy = Policy {
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    fn answer(policy: Policy, offers: &str) -> Option<String> {
        let mut list = Vec::new();
        parse_into(offers.as_bytes(), &mut list).unwrap();
        policy.accept(&list).map(|(_, element)| element)
    }

    #[test]
    fn the_first_offer_that_can_be_served_is_answered() {
        let check = |policy: Policy, offers: &str, expected: Option<&str>| {
            assert_eq!(answer(policy, offers).as_deref(), expected, "{offers}");
        };
        let frugal = Policy::default();
        let both = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        check(frugal, "permessage-deflate", Some(both));
        check(frugal, "permessage-deflate; client_max_window_bits", Some(both));
        check(frugal, "x-webkit-deflate-frame", None);
        check(LAX, "permessage-deflate", Some("permessage-deflate"));
        check(
            LAX,
            "permessage-deflate; server_no_context_takeover",
            Some("permessage-deflate; server_no_context_takeover"),
        );
        check(
            LAX,
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=\"12\"",
            Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=12"),
        );
        // RFC 7692 section 7.1.3: the second offer is the fallback.
        let fallback = "permessage-deflate; server_max_window_bits=8, permessage-deflate";
        check(LAX, fallback, Some("permessage-deflate"));
        for bad in [
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; unknown",
        ] {
            check(LAX, bad, None);
        }
        let narrow = Policy { server_max_window_bits: 11, client_max_window_bits: 10, ..LAX };
        check(narrow, "permessage-deflate", Some("permessage-deflate; server_max_window_bits=11"));
        check(
            narrow,
            "permessage-deflate; client_max_window_bits",
            Some("permessage-deflate; server_max_window_bits=11; client_max_window_bits=10"),
        );
    }

    fn judged(offer: Offer, answer: &str) -> Result<Params, NegotiationError> {
        let mut list = Vec::new();
        parse_into(answer.as_bytes(), &mut list).unwrap();
        offer.check(&list[0])
    }

    #[test]
    fn an_answer_beyond_the_offer_fails_the_connection() {
        let offer = Offer {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 12,
            client_max_window_bits: false,
        };
        assert_eq!(offer.to_element(), "permessage-deflate; server_max_window_bits=12");
        let got = judged(offer, "permessage-deflate; server_max_window_bits=10; client_no_context_takeover").unwrap();
        assert_eq!((got.server_max_window_bits, got.client_no_context_takeover), (10, true));
        for bad in [
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            "permessage-deflate; server_max_window_bits=12; mystery",
        ] {
            assert!(judged(offer, bad).is_err(), "{bad}");
        }
        assert!(judged(Offer::default(), "permessage-deflate").is_err(), "our demand was not confirmed");
        assert!(
            judged(Offer::default(), "permessage-deflate; server_no_context_takeover; client_max_window_bits").is_err()
        );
    }

    #[test]
    fn what_a_client_offers_our_server_serves() {
        for policy in [Policy::default(), LAX] {
            for offer in [Offer::default(), Offer { server_max_window_bits: 9, ..Offer::default() }] {
                let answer = answer(policy, &offer.to_element()).unwrap();
                judged(offer, &answer).unwrap();
            }
        }
    }
}
