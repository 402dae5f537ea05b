//! Tests of the built program, by capability; see README.md for where a new test goes.
