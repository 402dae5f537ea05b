//! Calls to the outside.

pub mod policy;
pub mod target;
