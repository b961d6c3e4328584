//! The value that goes with a body, and the fields of each request that carry it.
//!
//! The SDK is never asked to compute one: with `WhenRequired` and an algorithm's name it would send the name and no
//! value, which AWS refuses. So the value is computed here, once for a call and not for each try of it.

use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::types::builders::CompletedPartBuilder;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use md5::{Digest, Md5};

use super::provider::Checksum;

/// MD5 of a larger body is computed where it may block (it is ten times slower than a CRC).
const BLOCKING_BYTES: usize = 1 << 18;

/// A checksum and the value of one body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) kind: Checksum,
    /// Base64, as the headers want it.
    pub(super) value: String,
}

impl Sum {
    pub(super) async fn of(kind: Checksum, body: &Bytes) -> Self {
        if kind == Checksum::Md5 && body.len() > BLOCKING_BYTES {
            let shared = body.clone();
            // Only a runtime that is shutting down does not come back; then it does not matter where it blocks.
            if let Ok(sum) = tokio::task::spawn_blocking(move || Self::compute(kind, &shared)).await {
                return sum;
            }
        }
        Self::compute(kind, body)
    }

    fn compute(kind: Checksum, body: &[u8]) -> Self {
        let value = match kind {
            Checksum::Crc64Nvme => STANDARD.encode(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, body).to_be_bytes()),
            // A 32-bit checksum stands in the lower half.
            Checksum::Crc32C => STANDARD.encode(&crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body).to_be_bytes()[4..]),
            Checksum::Md5 => STANDARD.encode(Md5::digest(body)),
        };
        Self { kind, value }
    }

    pub(super) fn on_put(&self, request: PutObjectFluentBuilder) -> PutObjectFluentBuilder {
        match self.kind {
            Checksum::Crc64Nvme => request.checksum_crc64_nvme(&self.value),
            Checksum::Crc32C => request.checksum_crc32_c(&self.value),
            Checksum::Md5 => request.content_md5(&self.value),
        }
    }

    pub(super) fn on_part(&self, request: UploadPartFluentBuilder) -> UploadPartFluentBuilder {
        match self.kind {
            Checksum::Crc64Nvme => request.checksum_crc64_nvme(&self.value),
            Checksum::Crc32C => request.checksum_crc32_c(&self.value),
            Checksum::Md5 => request.content_md5(&self.value),
        }
    }
}

impl Checksum {
    /// An upload must name the algorithm before the first part, or AWS refuses the parts.
    pub(super) fn on_create(self, request: CreateMultipartUploadFluentBuilder) -> CreateMultipartUploadFluentBuilder {
        match self {
            Self::Crc64Nvme => request
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject),
            Self::Crc32C => request.checksum_algorithm(ChecksumAlgorithm::Crc32C),
            Self::Md5 => request,
        }
    }

    /// And Complete repeats the values of the parts.
    pub(super) fn on_completed(self, part: CompletedPartBuilder, value: Option<String>) -> CompletedPartBuilder {
        match self {
            Self::Crc64Nvme => part.set_checksum_crc64_nvme(value),
            Self::Crc32C => part.set_checksum_crc32_c(value),
            Self::Md5 => part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_standards() {
        // The check values of the CRC catalogue and of RFC 1321 for these inputs, in base64.
        let cases = [
            (Checksum::Crc64Nvme, "123456789", "rosUhgp5mIg="),
            (Checksum::Crc32C, "123456789", "4waSgw=="),
            (Checksum::Md5, "abc", "kAFQmDzST7DWlj99KOF/cg=="),
        ];
        for (kind, body, wanted) in cases {
            assert_eq!(Sum::compute(kind, body.as_bytes()).value, wanted, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn a_large_body_gives_the_same_value() {
        let body = Bytes::from(vec![7; BLOCKING_BYTES + 1]);
        for kind in [Checksum::Crc64Nvme, Checksum::Crc32C, Checksum::Md5] {
            assert_eq!(Sum::of(kind, &body).await, Sum::compute(kind, &body));
        }
    }
}
