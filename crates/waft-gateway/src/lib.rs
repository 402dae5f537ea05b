//! Requests proxied, held and answered from channels.
