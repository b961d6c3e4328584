//! Reading objects that lie under a customer's key (SSE-C): each GET and HEAD carries the key, and the store keeps none.
//!
//! Stores take such requests over https only. The key and its MD5 go into headers as base64, as Amazon's documentation of SSE-C
//! has it; nothing of it is ever shown.

use std::fmt;

use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::head_object::builders::HeadObjectFluentBuilder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use zeroize::Zeroize as _;

/// What a customer's key is for when nothing else is said; S3 knows no other.
const ALGORITHM: &str = "AES256";

/// A key that objects are read with. It has no secrets in its `Debug`.
#[derive(Clone)]
pub struct CustomerKey {
    algorithm: String,
    key: String,
    md5: String,
}

impl CustomerKey {
    /// Of these bytes, 32 for AES256.
    pub fn new(key: &[u8], algorithm: Option<&str>) -> Self {
        Self {
            algorithm: algorithm.unwrap_or(ALGORITHM).to_owned(),
            key: STANDARD.encode(key),
            md5: STANDARD.encode(Md5::digest(key)),
        }
    }

    pub(super) fn on_get(&self, request: GetObjectFluentBuilder) -> GetObjectFluentBuilder {
        request
            .sse_customer_algorithm(&self.algorithm)
            .sse_customer_key(&self.key)
            .sse_customer_key_md5(&self.md5)
    }

    /// A store tells nothing of such an object without the key, not even its length.
    pub(super) fn on_head(&self, request: HeadObjectFluentBuilder) -> HeadObjectFluentBuilder {
        request
            .sse_customer_algorithm(&self.algorithm)
            .sse_customer_key(&self.key)
            .sse_customer_key_md5(&self.md5)
    }
}

impl Drop for CustomerKey {
    fn drop(&mut self) {
        self.key.zeroize();
        self.md5.zeroize();
    }
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomerKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
