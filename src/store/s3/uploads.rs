//! Uploads that nobody completed, as the bucket lists them.
//!
//! A store that does not know the request, or a key without the right to it, is told of as an error: who asks decides
//! whether that matters.

use aws_sdk_s3::types::EncodingType;

use super::super::counters::Kind;
use super::super::uploads::{OpenUpload, Uploads};
use super::super::{Call, UploadId};
use super::S3;
use super::calls::{modified, percent_decode};
use super::classify::Failure;
use super::meter::Seen;
use super::retry::Ask;

impl S3 {
    async fn list_uploads_once(&self, prefix: &str) -> Result<Vec<OpenUpload>, Failure> {
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(self.full(prefix))
            .encoding_type(EncodingType::Url);
        let answer = request
            .customize()
            .interceptor(self.meter(&Seen::default()))
            .send()
            .await
            .map_err(Failure::of)?;
        let is_encoded = answer.encoding_type == Some(EncodingType::Url);
        let mut uploads = Vec::new();
        for upload in answer.uploads.unwrap_or_default() {
            let key = upload.key.unwrap_or_default();
            let key = if is_encoded { percent_decode(&key) } else { key };
            let (Some(key), Some(id)) = (key.strip_prefix(&self.prefix), upload.upload_id) else {
                continue;
            };
            uploads.push(OpenUpload {
                key: key.to_owned(),
                id: UploadId(id),
                begun: modified(upload.initiated.as_ref())?,
            });
        }
        Ok(uploads)
    }
}

impl Uploads for S3 {
    fn list_uploads<'a>(&'a self, prefix: &'a str) -> Call<'a, Vec<OpenUpload>> {
        Box::pin(async move {
            let listed = self.tries(Ask::new(Kind::List), || self.list_uploads_once(prefix)).await;
            listed.map_err(|failure| self.error(Kind::List, prefix, failure))
        })
    }
}
