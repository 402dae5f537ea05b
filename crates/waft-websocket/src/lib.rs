//! WebSocket frames, messages and compression without IO.
