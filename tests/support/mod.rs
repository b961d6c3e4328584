//! What several test binaries share: real servers, and a network that misbehaves when asked.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod canned;
pub mod minio;
pub mod proxy;
