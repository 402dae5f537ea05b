//! Outbound.
