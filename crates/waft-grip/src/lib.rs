//! GRIP headers and instructions, publish items and formats, filters and signatures, without IO.
