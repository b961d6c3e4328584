//! Being built.
pub mod media;
pub mod postgres;
