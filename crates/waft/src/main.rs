//! The waft binary.

fn main() {}
