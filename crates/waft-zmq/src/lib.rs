//! ZMQ.
