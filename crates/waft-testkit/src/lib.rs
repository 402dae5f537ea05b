//! Starts the built program and its peers for tests.
