//! One function for each request: built, sent once, and its answer read. No retries here (`retry`).
//!
//! Bodies are bytes in memory, never streams: a stream would be sent chunked with a trailer, which several servers refuse.
//! On https the payload is not signed (TLS and the checksum protect it, and SHA-256 over everything costs); on
//! http it is.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, EncodingType, StorageClass};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::super::counters::Kind;
use super::super::error::Cause;
use super::super::versions::Retention;
use super::super::{ByteRange, Got, Head, Listed, Page, PartTag, Stamp, UploadId};
use super::S3;
use super::checksum::Sum;
use super::classify::Failure;
use super::meter::{Meter, Seen, timestamp};
use super::retry::Ask;
use super::versions::{mode, until};

/// Memory taken for an answer before its first byte is there.
const RESERVED_BYTES_MAX: u64 = 8 << 20;

impl S3 {
    pub(super) fn meter(&self, seen: &Seen) -> Meter {
        Meter {
            seen: seen.clone(),
            counters: self.counters.clone(),
            server: self.server.clone(),
            clock: self.clock.clone(),
        }
    }

    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Only packs: what is read at every run stays in the class that costs nothing to read.
    fn storage_class(&self, key: &str) -> Option<StorageClass> {
        self.storage_class.clone().filter(|_| key.starts_with("packs/"))
    }

    pub(super) async fn put_once(&self, key: &str, body: Bytes, sum: &Sum, held: Option<Retention>) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_storage_class(self.storage_class(key))
            .set_object_lock_mode(held.map(mode))
            .set_object_lock_retain_until_date(held.map(until));
        let request = sum
            .on_put(request.body(ByteStream::from(body)))
            .customize()
            .interceptor(self.meter(&seen));
        let request = if self.is_https {
            request.disable_payload_signing()
        } else {
            request
        };
        request.send().await.map_err(Failure::of)?;
        Ok(Stamp { date: seen.date()? })
    }

    pub(super) async fn create_once(&self, key: &str, held: Option<Retention>) -> Result<UploadId, Failure> {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_storage_class(self.storage_class(key))
            .set_object_lock_mode(held.map(mode))
            .set_object_lock_retain_until_date(held.map(until));
        let request = self
            .checksum()
            .on_create(request)
            .customize()
            .interceptor(self.meter(&Seen::default()));
        let answer = request.send().await.map_err(Failure::of)?;
        let id = answer.upload_id.filter(|id| !id.is_empty());
        id.map(UploadId)
            .ok_or_else(|| Failure::fatal(Cause::new("the answer names no upload")))
    }

    pub(super) async fn part_once(&self, key: &str, upload: &UploadId, number: i32, body: Bytes, sum: &Sum) -> Result<String, Failure> {
        let request = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(self.full(key))
            .upload_id(&upload.0)
            .part_number(number);
        let request = sum
            .on_part(request.body(ByteStream::from(body)))
            .customize()
            .interceptor(self.meter(&Seen::default()));
        let request = if self.is_https {
            request.disable_payload_signing()
        } else {
            request
        };
        let answer = request.send().await.map_err(Failure::of)?;
        answer.e_tag.ok_or_else(|| Failure::fatal(Cause::new("the answer has no ETag")))
    }

    pub(super) async fn complete_once(&self, key: &str, upload: &UploadId, parts: &[PartTag], object_bytes: u64) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let completed = parts.iter().map(|tag| {
            let part = CompletedPart::builder().part_number(tag.number.cast_signed()).e_tag(&tag.etag);
            self.checksum().on_completed(part, tag.checksum.clone()).build()
        });
        let completed = CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let bytes = i64::try_from(object_bytes).ok().filter(|_| self.provider.checks_object_bytes());
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full(key))
            .upload_id(&upload.0);
        let request = request.multipart_upload(completed).set_mpu_object_size(bytes);
        request
            .customize()
            .interceptor(self.meter(&seen))
            .send()
            .await
            .map_err(Failure::of)?;
        Ok(Stamp { date: seen.date()? })
    }

    pub(super) async fn abort_once(&self, key: &str, upload: &UploadId) -> Result<(), Failure> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full(key))
            .upload_id(&upload.0);
        request
            .customize()
            .interceptor(self.meter(&Seen::default()))
            .send()
            .await
            .map_err(Failure::of)?;
        Ok(())
    }

    pub(super) async fn copy_once(&self, from: &str, to: &str, held: Option<Retention>) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let source = percent_encode(&format!("{}/{}", self.bucket, self.full(from)));
        let request = self
            .client
            .copy_object()
            .bucket(&self.bucket)
            .key(self.full(to))
            .copy_source(source)
            .set_object_lock_mode(held.map(mode))
            .set_object_lock_retain_until_date(held.map(until));
        let request = request
            .set_storage_class(self.storage_class(to))
            .customize()
            .interceptor(self.meter(&seen));
        request.send().await.map_err(Failure::of)?;
        Ok(Stamp { date: seen.date()? })
    }

    pub(super) async fn head_once(&self, key: &str) -> Result<Head, Failure> {
        let seen = Seen::default();
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
        let request = match &self.customer_key {
            Some(key) => key.on_head(request),
            None => request,
        };
        let request = request.customize().interceptor(self.meter(&seen));
        let answer = request.send().await.map_err(Failure::of)?;
        Ok(Head {
            bytes: length(answer.content_length)?,
            last_modified: modified(answer.last_modified.as_ref())?,
            date: seen.date()?,
        })
    }

    pub(super) async fn delete_once(&self, key: &str) -> Result<Stamp, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .customize()
            .interceptor(self.meter(&seen));
        match request.send().await.map_err(Failure::of) {
            // Some stores say so; S3 does not.
            Err(failure) if !failure.is_missing_object() => Err(failure),
            _ => Ok(Stamp { date: seen.date()? }),
        }
    }

    pub(super) async fn list_once(&self, prefix: &str, token: Option<&str>) -> Result<Page, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full(prefix))
            .encoding_type(EncodingType::Url);
        let request = request
            .set_continuation_token(token.map(str::to_owned))
            .customize()
            .interceptor(self.meter(&seen));
        let answer = request.send().await.map_err(Failure::of)?;
        let is_encoded = answer.encoding_type == Some(EncodingType::Url);
        let mut objects = Vec::with_capacity(answer.contents.as_ref().map_or(0, Vec::len));
        for object in answer.contents.unwrap_or_default() {
            let key = object.key.unwrap_or_default();
            let key = if is_encoded { percent_decode(&key) } else { key };
            // A store that answers beyond the prefix is wrong; such keys are not ours in any case.
            let Some(key) = key.strip_prefix(&self.prefix) else { continue };
            objects.push(Listed {
                key: key.to_owned(),
                bytes: length(object.size)?,
                last_modified: modified(object.last_modified.as_ref())?,
            });
        }
        let next = answer.next_continuation_token.filter(|_| answer.is_truncated == Some(true));
        if answer.is_truncated == Some(true) && next.is_none() {
            return Err(Failure::fatal(Cause::new("the listing goes on but does not say where")));
        }
        Ok(Page {
            objects,
            next,
            date: seen.date()?,
        })
    }

    pub(super) async fn get_once(&self, key: &str, version: Option<&str>, range: ByteRange) -> Result<Got, Failure> {
        let seen = Seen::default();
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_version_id(version.map(str::to_owned))
            .set_range(range_header(range));
        let request = match &self.customer_key {
            Some(key) => key.on_get(request),
            None => request,
        };
        let request = request.customize().interceptor(self.meter(&seen));
        let mut answer = self
            .in_time(Ask::new(Kind::Get), async { request.send().await.map_err(Failure::of) })
            .await?;
        let date = seen.date()?;
        let last_modified = modified(answer.last_modified.as_ref())?;
        let coming = length(answer.content_length)?;
        let (object_bytes, wanted) = shape(&answer, range, coming)?;
        if let ByteRange::AtMost(limit) = range
            && object_bytes > limit
        {
            return Err(Failure::too_long(object_bytes, limit));
        }
        let mut bytes = self.whole_in_time(coming, self.body(&mut answer.body, coming)).await?;
        if let Some((start, end)) = wanted {
            #[expect(clippy::cast_possible_truncation, reason = "both lie inside what is in memory")]
            let part = bytes.split_to(end as usize).split_off(start as usize);
            bytes = part;
        }
        Ok(Got {
            bytes,
            object_bytes,
            last_modified,
            date,
        })
    }

    async fn body(&self, body: &mut ByteStream, coming: u64) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::with_capacity(usize::try_from(coming.min(RESERVED_BYTES_MAX)).unwrap_or(0));
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| Failure::transient(Cause::new("the answer broke off").source(error)))?;
            self.counters.received(piece.len() as u64);
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() as u64 == coming {
            return Ok(bytes.freeze());
        }
        Err(Failure::transient(Cause::new(format!(
            "the answer has {} bytes instead of {coming}",
            bytes.len()
        ))))
    }
}

fn range_header(range: ByteRange) -> Option<String> {
    match range {
        ByteRange::All | ByteRange::AtMost(_) => None,
        // Some servers count in signed numbers; no object is so long that it matters.
        ByteRange::From { offset, length } if offset.saturating_add(length) > i64::MAX.cast_unsigned() => Some(format!("bytes={offset}-")),
        ByteRange::From { offset, length } => Some(format!("bytes={offset}-{}", offset.saturating_add(length).saturating_sub(1))),
        ByteRange::Last(length) => Some(format!("bytes=-{}", length.min(i64::MAX.cast_unsigned()))),
    }
}

/// Length of the object, and which bytes to cut out of the answer where the store gave more than was asked for.
fn shape(answer: &GetObjectOutput, range: ByteRange, coming: u64) -> Result<(u64, Option<(u64, u64)>), Failure> {
    let Some(content_range) = answer.content_range.as_deref() else {
        // The whole object: asked for, or a store that does not know ranges.
        let wanted = range.within(coming);
        return Ok((coming, (wanted != (0, coming)).then_some(wanted)));
    };
    let strange = || Failure::fatal(Cause::new(format!("the answer is for another range: {content_range}")));
    let (given, total) = content_range
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(strange)?;
    let total: u64 = total.parse().map_err(|_| strange())?;
    let (start, end) = range.within(total);
    if start == end && coming == 0 {
        // An empty object has no range to name: `bytes 0--1/0` from MinIO.
        return Ok((total, None));
    }
    if start == end || given != format!("{start}-{}", end - 1) || coming != end - start {
        return Err(strange());
    }
    Ok((total, None))
}

pub(super) fn length(length: Option<i64>) -> Result<u64, Failure> {
    length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| Failure::fatal(Cause::new("the answer does not say the object's length")))
}

pub(super) fn modified(time: Option<&DateTime>) -> Result<Timestamp, Failure> {
    time.and_then(timestamp)
        .ok_or_else(|| Failure::fatal(Cause::new("the answer has no Last-Modified")))
}

/// For the header that names the source of a copy, which the SDK hands on as it is.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}

/// For keys of a listing with `encoding-type=url`, where a space may come as `+`. Bytes that are no UTF-8 are replaced: such keys
/// are not ours.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|two| hex::decode(two).ok());
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => bytes.push(if *first == b'+' { b' ' } else { *first }),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_encoding_and_decoding() {
        for key in ["packs/0a/x.zst", "with space", "plus+plus", "per%cent", "ümläut/☃", "a\nb", "%zz%4"] {
            assert_eq!(percent_decode(&percent_encode(key)), key);
        }
        assert_eq!(percent_decode("a+b%2Bc"), "a b+c");
        assert_eq!(percent_decode("%ff%zz%4"), "\u{fffd}%zz%4");
    }
}
