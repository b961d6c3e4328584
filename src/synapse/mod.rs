//! Being built.
#[derive(Debug)]
/// stub
pub struct Homeserver {}
