//! What is known of each vendor: which checksum it checks, how it is addressed, which region it wants.
//!
//! A provider only presets capabilities; every one of them can be overruled by a setting. `docs/providers.md` says where each
//! entry comes from and which were tested. What is *not* here: conditional writes, versioning, locks: we need none.

use std::fmt;
use std::str::FromStr;

use super::super::Error;

/// Whose S3 it is (`s3.provider`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Amazon S3.
    Aws,
    /// `MinIO`.
    Minio,
    /// Backblaze B2.
    B2,
    /// Cloudflare R2.
    R2,
    /// Wasabi.
    Wasabi,
    /// Garage.
    Garage,
    /// `SeaweedFS`.
    Seaweedfs,
    /// Ceph's object gateway.
    Ceph,
    /// Hetzner Object Storage.
    Hetzner,
    /// Any other: only what every S3 server understands.
    Generic,
}

/// How the bytes of a write are protected on their way, so that the store refuses what arrived damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// `x-amz-checksum-crc64nvme`; S3's own default since 2024.
    Crc64Nvme,
    /// `x-amz-checksum-crc32c`.
    Crc32C,
    /// `content-md5`: understood by every S3 server since 2006, but slow to compute.
    Md5,
}

impl Provider {
    /// The names for settings, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Aws,
        Self::Minio,
        Self::B2,
        Self::R2,
        Self::Wasabi,
        Self::Garage,
        Self::Seaweedfs,
        Self::Ceph,
        Self::Hetzner,
        Self::Generic,
    ];

    /// As it stands in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Minio => "minio",
            Self::B2 => "b2",
            Self::R2 => "r2",
            Self::Wasabi => "wasabi",
            Self::Garage => "garage",
            Self::Seaweedfs => "seaweedfs",
            Self::Ceph => "ceph",
            Self::Hetzner => "hetzner",
            Self::Generic => "generic",
        }
    }

    /// From the endpoint's host; without an endpoint it is Amazon.
    pub(super) fn of_host(host: Option<&str>) -> Self {
        let Some(host) = host else { return Self::Aws };
        let host = host.to_ascii_lowercase();
        let known = [
            ("amazonaws.com", Self::Aws),
            ("amazonaws.com.cn", Self::Aws),
            ("backblazeb2.com", Self::B2),
            ("r2.cloudflarestorage.com", Self::R2),
            ("wasabisys.com", Self::Wasabi),
            ("your-objectstorage.com", Self::Hetzner),
        ];
        let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        known
            .into_iter()
            .find(|(domain, _)| is_below(domain))
            .map_or(Self::Generic, |(_, provider)| provider)
    }

    /// From the `Server` header of an answer, for those that give their name there.
    pub(super) fn of_server(header: &str) -> Option<Self> {
        let header = header.to_ascii_lowercase();
        if header.starts_with("minio") {
            Some(Self::Minio)
        } else if header.starts_with("seaweedfs") {
            Some(Self::Seaweedfs)
        } else {
            None
        }
    }

    pub(super) fn checksum(self) -> Checksum {
        match self {
            Self::Aws | Self::R2 | Self::Garage | Self::Seaweedfs => Checksum::Crc64Nvme,
            // Releases before January 2025 do not know CRC64NVME.
            Self::Minio => Checksum::Crc32C,
            Self::B2 | Self::Wasabi | Self::Ceph | Self::Hetzner | Self::Generic => Checksum::Md5,
        }
    }

    /// `http://host/bucket/key` instead of `http://bucket.host/key`.
    pub(super) fn path_style(self) -> bool {
        !matches!(self, Self::Aws | Self::B2 | Self::Wasabi | Self::Hetzner)
    }

    /// The region where none is set: some write it into the host name, some want a fixed word, most take any.
    pub(super) fn region(self, host: Option<&str>) -> &str {
        let label = |before: &str| {
            host.and_then(|host| host.strip_prefix(before)?.split('.').next())
                .filter(|label| label.contains('-'))
        };
        match self {
            Self::R2 => "auto",
            Self::Garage => "garage",
            Self::Aws | Self::B2 | Self::Wasabi => label("s3.").unwrap_or("us-east-1"),
            _ => "us-east-1",
        }
    }

    /// Whether Complete may carry the object's length, which the store then compares.
    pub(super) fn checks_object_bytes(self) -> bool {
        self == Self::Aws
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|provider| provider.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            Error::BadUrl {
                message: format!("`{text}` is not a provider: one of {}", names.join(", ")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_tells_provider_and_region() {
        let cases = [
            (None, Provider::Aws, "us-east-1"),
            (Some("s3.eu-central-1.amazonaws.com"), Provider::Aws, "eu-central-1"),
            (Some("s3.us-west-004.backblazeb2.com"), Provider::B2, "us-west-004"),
            (Some("s3.eu-central-2.wasabisys.com"), Provider::Wasabi, "eu-central-2"),
            (Some("s3.wasabisys.com"), Provider::Wasabi, "us-east-1"),
            (Some("0123abcd.r2.cloudflarestorage.com"), Provider::R2, "auto"),
            (Some("0123abcd.eu.R2.cloudflarestorage.com"), Provider::R2, "auto"),
            (Some("fsn1.your-objectstorage.com"), Provider::Hetzner, "us-east-1"),
            (Some("127.0.0.1"), Provider::Generic, "us-east-1"),
            (Some("notamazonaws.com"), Provider::Generic, "us-east-1"),
        ];
        for (host, provider, region) in cases {
            let guessed = Provider::of_host(host);
            assert_eq!((guessed, guessed.region(host)), (provider, region), "{host:?}");
        }
    }

    #[test]
    fn every_provider_is_read_from_its_name() {
        for provider in Provider::ALL {
            assert_eq!(provider.name().parse::<Provider>().ok(), Some(provider));
        }
        let message = "amazon"
            .parse::<Provider>()
            .map_or_else(|error| error.to_string(), |_| String::new());
        assert!(message.contains("one of aws, minio"), "{message}");
    }
}
