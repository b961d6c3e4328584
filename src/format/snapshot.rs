//! Being built.
#![allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    pub kind: String,
    pub item: String,
    pub message: String,
}
#[derive(Debug, Clone, serde::Serialize)]
pub struct Snapshot {}
