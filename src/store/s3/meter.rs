//! What every answer tells beside its content: the store's `Date`, its `Server`, and how many bytes it was.
//!
//! The SDK does not hand these out, so an interceptor per request reads them. It runs for answers of every status.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_sdk_s3::config::interceptors::{AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextRef};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::super::counters::Counters;
use super::super::error::Cause;
use super::classify::Failure;
use super::provider::Provider;

/// What one answer told.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen(Arc<OnceLock<Option<Timestamp>>>);

impl Seen {
    /// The answer's Date. The protocol's times are only ever the store's, so without one we cannot go on.
    pub(super) fn date(&self) -> Result<Timestamp, Failure> {
        self.0.get().copied().flatten().ok_or_else(|| {
            let hint = "the store, or a proxy in front of it, must send the `Date` header that HTTP asks for";
            Failure::fatal(Cause::new("the answer has no Date").hint(Some(hint)))
        })
    }
}

/// Reads each answer.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) seen: Seen,
    pub(super) counters: Arc<Counters>,
    /// Whose software answers, where it says so.
    pub(super) server: Arc<OnceLock<Provider>>,
    pub(super) clock: Arc<Clock>,
}

/// The store's clock between its answers: the last Date, and how long ago that was.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(Timestamp, Instant)>>);

impl Clock {
    fn set(&self, date: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((date, Instant::now()));
    }

    /// The store's time now; `None` before its first answer.
    pub(super) fn now(&self) -> Option<Timestamp> {
        let (date, seen) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(date.saturating_add(SignedDuration::try_from(seen.elapsed()).ok()?).unwrap_or(date))
    }
}

#[dyn_dispatch_hint]
impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        let date = headers
            .get("date")
            .and_then(|date| timestamp(&DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?));
        let _ = self.seen.0.set(date);
        if let Some(date) = date {
            self.clock.set(date);
        }
        if let Some(server) = headers.get("server").and_then(Provider::of_server) {
            let _ = self.server.set(server);
        }
        Ok(())
    }

    /// Only answers that were read whole have bytes here; a download is counted as it comes in.
    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.counters
            .received(context.response().body().bytes().map_or(0, |bytes| bytes.len() as u64));
        Ok(())
    }
}

/// The SDK's time as ours; `None` for one that no calendar knows.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}
