//! What an answer, or the lack of one, means: the SDK's errors sorted by what can be done about them.
//!
//! Two questions are answered for each failure. What is it: a missing object, a refused key, a wrong region, a server in
//! trouble? And did the request surely have *no* effect? On the second rests rule G1: a write is only repeated where
//! it had none. Types decide wherever the SDK and its network stack give types; codes and statuses decide the rest.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use hyper_util::client::legacy::Error as HyperError;
use rustls::{CertificateError, Error as TlsError};

use super::super::Error;
use super::super::counters::Kind;
use super::super::error::{Cause, Hint};

const SPEAKS_TLS: &str = "the store speaks TLS: write https:// in s3.endpoint";

/// What a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No such object.
    NotFound,
    /// 404 without a word: an object or a bucket that is not there.
    NothingThere,
    /// No such bucket.
    NoBucket,
    /// No such upload.
    NoUpload,
    /// The range lies past the end of the object.
    PastEnd,
    /// The key is not known, or the secret is wrong, or the token expired.
    Credentials,
    /// The key lacks a right.
    Denied,
    /// The connection was not made.
    Unreachable,
    /// The name is not known, or what answers does not speak TLS: no second try will help.
    WrongAddress,
    /// The certificate is not accepted.
    Tls,
    /// The store's clock and ours differ; the SDK has learnt by how much.
    Skewed,
    /// Try again later.
    Transient,
    /// The object has more bytes than it may have: so many, and so many.
    TooLong(u64, u64),
    /// Our body arrived as something else, and was refused.
    Garbled,
    /// Nothing helps.
    Fatal,
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    /// The store surely did not carry the request out.
    pub(super) had_no_effect: bool,
    pub(super) cause: Cause,
}

impl Failure {
    /// Nothing helps, and nothing is known about its effect.
    pub(super) fn fatal(cause: Cause) -> Self {
        Self {
            reason: Reason::Fatal,
            had_no_effect: false,
            cause,
        }
    }

    /// The object has more bytes than whoever reads it takes.
    pub(super) fn too_long(bytes: u64, limit: u64) -> Self {
        Self {
            reason: Reason::TooLong(bytes, limit),
            had_no_effect: true,
            cause: Cause::new("it is too long"),
        }
    }

    /// It broke on the way; nothing is known about its effect.
    pub(super) fn transient(cause: Cause) -> Self {
        Self {
            reason: Reason::Transient,
            had_no_effect: false,
            cause,
        }
    }

    pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(context) => {
                let answer = Answer::of(context.err(), context.raw());
                answer.failure()
            }
            SdkError::DispatchFailure(context) => match context.as_connector_error() {
                Some(error) => not_dispatched(error, &chain_text(error)),
                None => Self::transient(Cause::new("the request was not sent")),
            },
            SdkError::ResponseError(context) => {
                let (status, has_date) = (context.raw().status().as_u16(), context.raw().headers().contains_key("date"));
                let text = format!("the answer (HTTP {status}) cannot be read");
                let cause = Cause::new(text).source(SdkError::<E, HttpResponse>::ResponseError(context));
                match status {
                    // Servers written in Go say so to whom does not speak TLS, and hang up.
                    400 if !has_date => Self::fatal(cause.hint(Some(SPEAKS_TLS))),
                    _ => Self::transient(cause),
                }
            }
            SdkError::TimeoutError(context) => {
                Self::transient(Cause::new("no answer in time").source(SdkError::<E, HttpResponse>::TimeoutError(context)))
            }
            other => Self {
                reason: Reason::Fatal,
                had_no_effect: true,
                cause: Cause::new("the request cannot be built").source(other),
            },
        }
    }

    /// The store has answered, and knows us: what comes later deserves more patience.
    pub(super) fn shows_that_the_store_works(&self) -> bool {
        matches!(
            self.reason,
            Reason::NotFound | Reason::NoUpload | Reason::PastEnd | Reason::TooLong(..)
        )
    }

    /// An object, as far as can be told.
    pub(super) fn is_missing_object(&self) -> bool {
        matches!(self.reason, Reason::NotFound | Reason::NothingThere)
    }

    /// The error for the caller.
    pub(super) fn into_error(self, url: &str, kind: Kind, key: &str) -> Error {
        let (url, action, key) = (url.to_owned(), kind.verb(), key.to_owned());
        let may_have_happened = !self.had_no_effect && matches!(kind, Kind::Put | Kind::Copy);
        match self.reason {
            Reason::NothingThere if !matches!(kind, Kind::Get | Kind::Head | Kind::Copy) => Error::NoBucket { url },
            Reason::NotFound | Reason::NothingThere => Error::NotFound { key },
            Reason::TooLong(bytes, limit) => Error::TooLong { key, bytes, limit },
            Reason::NoBucket => Error::NoBucket { url },
            Reason::Credentials => {
                let hint = self.cause.own_hint().unwrap_or_default();
                Error::Unauthenticated {
                    url,
                    message: self.cause.to_string(),
                    hint,
                }
            }
            Reason::Denied => Error::Denied { url, action, key },
            Reason::Unreachable | Reason::WrongAddress => Error::Unreachable {
                url,
                source: self.cause.into(),
            },
            Reason::Tls => Error::Tls {
                url,
                source: self.cause.into(),
            },
            Reason::Transient if may_have_happened => Error::Unknown {
                action,
                key,
                source: self.cause.into(),
            },
            Reason::NoUpload | Reason::PastEnd | Reason::Skewed | Reason::Transient | Reason::Garbled | Reason::Fatal => Error::Failed {
                action,
                key,
                source: self.cause.into(),
            },
        }
    }
}

/// An HTTP answer that is not a success (or one with an error in its body).
struct Answer<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    /// The right region, where the store names it.
    region: Option<String>,
}

impl<'a> Answer<'a> {
    fn of<E: ProvideErrorMetadata>(error: &'a E, raw: &HttpResponse) -> Self {
        let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
        let in_body = || Some(body.split_once("<Region>")?.1.split_once("</Region>")?.0.to_owned());
        let region = raw.headers().get("x-amz-bucket-region").map(str::to_owned).or_else(in_body);
        Self {
            status: raw.status().as_u16(),
            code: error.code().unwrap_or_default(),
            message: error.message().unwrap_or_default(),
            region,
        }
    }

    fn failure(&self) -> Failure {
        let (reason, hint) = self.meaning();
        // A server that is in trouble, or a proxy before it, may have done it all the same.
        let had_no_effect = match reason {
            Reason::Transient => {
                matches!(self.code, "SlowDown" | "TooManyRequests" | "RequestTimeout" | "OperationAborted") || self.status == 429
            }
            _ => true,
        };
        let is_refusal = matches!(reason, Reason::Fatal | Reason::PastEnd) && (400..500).contains(&self.status);
        Failure {
            reason,
            had_no_effect,
            cause: Cause::new(self.text()).hint(hint).refusal(is_refusal),
        }
    }

    fn text(&self) -> String {
        let status = self.status;
        match (self.code, self.message) {
            ("", "") => format!("HTTP {status}"),
            (code, "") => format!("{code} (HTTP {status})"),
            ("", message) => format!("{message} (HTTP {status})"),
            (code, message) => format!("{code}: {}", message.replace('\n', " ")),
        }
    }

    fn meaning(&self) -> (Reason, Option<Hint>) {
        let credentials = |hint: &str| (Reason::Credentials, Some(hint.to_owned()));
        match self.code {
            "NoSuchKey" => (Reason::NotFound, None),
            "NoSuchBucket" => (Reason::NoBucket, None),
            "NoSuchUpload" => (Reason::NoUpload, None),
            "InvalidRange" => (Reason::PastEnd, None),
            "InvalidAccessKeyId" | "InvalidAccessKey" | "NoSuchKeyId" => credentials(
                "this store does not know the access key: check AWS_ACCESS_KEY_ID or the profile, and s3.endpoint \
                     (SYNAPSE_BACKUP_S3_ENDPOINT): without it Amazon is meant",
            ),
            "SignatureDoesNotMatch" | "InvalidSignature" => {
                credentials("the secret does not belong to the access key: check AWS_SECRET_ACCESS_KEY or the profile")
            }
            "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => {
                credentials("the session token has expired: get new credentials")
            }
            "InvalidToken" | "InvalidClientTokenId" => {
                credentials("the session token is not valid here: unset AWS_SESSION_TOKEN, or get new credentials")
            }
            "RequestTimeTooSkewed" | "RequestInTheFuture" => (
                Reason::Skewed,
                Some("the clock of this machine is wrong: set it (with NTP), or that of the store".to_owned()),
            ),
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "Redirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => self.elsewhere(),
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "UnauthorizedAccess" => (Reason::Denied, None),
            // MinIO's words for what Object Lock holds, where Amazon denies access.
            "InvalidRequest" if self.message.contains("WORM protected") => (Reason::Denied, None),
            "InvalidStorageClass" => (
                Reason::Fatal,
                Some("this store does not know the class: correct or remove s3.storage_class".to_owned()),
            ),
            "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "IncompleteBody" => (
                Reason::Garbled,
                Some("what is sent arrives as something else: look for a proxy that changes it, a bad network card, bad memory".to_owned()),
            ),
            "InternalError" | "ServiceUnavailable" | "SlowDown" | "TooManyRequests" | "RequestTimeout" | "OperationAborted" => {
                (Reason::Transient, None)
            }
            _ => self.by_status(),
        }
    }

    fn by_status(&self) -> (Reason, Option<Hint>) {
        let proxy = "a proxy or another web server answers there: check s3.endpoint and the proxy settings of the environment";
        match self.status {
            300..=399 => self.elsewhere(),
            // The answer to a HEAD has no body and so no code.
            404 if self.code.is_empty() || self.code == "NotFound" => (Reason::NothingThere, None),
            403 => (Reason::Denied, None),
            401 => (
                Reason::Credentials,
                Some("the store wants other credentials than the environment or the profile give".to_owned()),
            ),
            407 => (Reason::Fatal, Some(proxy.to_owned())),
            416 => (Reason::PastEnd, None),
            400 if self.message.contains("HTTPS server") || self.message.contains("HTTPS port") => (
                Reason::Fatal,
                Some("the store speaks TLS: write https:// in s3.endpoint".to_owned()),
            ),
            400 if self.code.is_empty() && self.region.is_some() => self.elsewhere(),
            405 | 501 => (
                Reason::Fatal,
                Some("this does not look like an S3 store, or it lacks the request: check s3.endpoint and s3.provider".to_owned()),
            ),
            507 => (Reason::Fatal, Some("the store is full".to_owned())),
            408 | 409 | 425 | 429 | 499 | 500..=599 => (Reason::Transient, None),
            _ => (Reason::Fatal, None),
        }
    }

    fn elsewhere(&self) -> (Reason, Option<Hint>) {
        let hint = match &self.region {
            Some(region) => format!("the bucket is in another region: set s3.region to {region}"),
            None => "the bucket is in another region or at another endpoint: check s3.region and s3.endpoint".to_owned(),
        };
        (Reason::Fatal, Some(hint))
    }
}

/// No answer at all.
fn not_dispatched(error: &ConnectorError, text: &str) -> Failure {
    let failure = |reason, had_no_effect, cause: &str, hint: Option<&str>| Failure {
        reason,
        had_no_effect,
        cause: Cause::new(format!("{cause}: {text}")).hint(hint),
    };
    if !find::<HyperError>(error).is_some_and(HyperError::is_connect) {
        // Broken while it was sent or answered; or it never began, because new credentials were not to be had.
        let was_sent = find::<HyperError>(error).is_some();
        return failure(
            Reason::Transient,
            !was_sent,
            if was_sent {
                "the connection broke"
            } else {
                "the request was not sent"
            },
            None,
        );
    }
    match find::<TlsError>(error) {
        Some(TlsError::InvalidCertificate(why)) => return failure(Reason::Tls, true, "TLS", Some(certificate_hint(why))),
        Some(_) => {
            let hint = "the endpoint does not speak TLS as we do: check host and port, and whether it must be http:// in s3.endpoint";
            return failure(Reason::WrongAddress, true, "TLS", Some(hint));
        }
        None => {}
    }
    if text.contains("dns error") {
        return failure(
            Reason::WrongAddress,
            true,
            "the host is not known",
            Some("check s3.endpoint (SYNAPSE_BACKUP_S3_ENDPOINT): without it Amazon is meant; and the name service of this machine"),
        );
    }
    let refused = find::<std::io::Error>(error).is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    let hint = if refused {
        "nothing listens there: check that the store runs, and host and port in s3.endpoint"
    } else {
        "check host and port in s3.endpoint, the network, a firewall, and the proxy settings of the environment"
    };
    failure(Reason::Unreachable, true, "no connection", Some(hint))
}

fn certificate_hint(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired: renew it at the store (or the clock of this machine is wrong)"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet: check the clock of this machine"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name: write the name it was made for into s3.endpoint"
        }
        _ => "if this is your own store, put the certificate of its authority (PEM) into s3.ca_file",
    }
}

/// The first error of a type in a chain. An `io::Error`'s `source()` passes over what it holds, so that is looked at too.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(<dyn StdError>::downcast_ref)
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// A chain in one line, without what repeats.
pub(super) fn chain_text(error: &(dyn StdError + 'static)) -> String {
    let mut lines: Vec<String> = Vec::new();
    // The first is the SDK's "io error" or "other", which says nothing.
    for error in chain(error).skip(1) {
        let line = error.to_string().replace('\n', " ");
        if !lines.iter().any(|before| before.contains(&line)) {
            lines.push(line);
        }
    }
    lines.join(": ")
}
