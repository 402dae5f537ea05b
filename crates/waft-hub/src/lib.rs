//! Channels: order, log, positions and the plan of who gets what, without IO.
