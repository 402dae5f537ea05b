//! The control API, metrics and health.
