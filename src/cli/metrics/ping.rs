//! A monitor is told that a run began and how it ended, as healthchecks.io wants to hear it.
//!
//! A POST to the address itself means success, to `/start` and `/fail` below it what they say; the body is a line for whoever
//! looks there. Each try has a short time, and there are few: a monitor that does not answer must not hold up a backup, and one
//! that never heard of a run rings by itself. No message shows the address, which is a secret.

use std::error::Error as StdError;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use rustls::Error as TlsError;
use zeroize::Zeroizing;

/// What a monitor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ping {
    /// A run begins.
    Start,
    /// It ended well.
    Success,
    /// It did not.
    Failure,
}

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) tries: u32,
    /// For one try.
    pub(super) time: Duration,
    /// Before the second try; twice as long before each further one.
    pub(super) pause: Duration,
}

/// What a try came to, if not to an answer that is good.
enum Failed {
    /// It may be better the next time.
    ForNow(String),
    /// It will not.
    ForGood(String),
}

/// Tell it. The error is a sentence without the address.
pub(super) async fn send(url: &str, ping: Ping, body: &str, patience: Patience) -> Result<(), String> {
    let connector = Connector::builder()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .proxy_config(ProxyConfig::from_env())
        .build();
    let address = below(url, ping);
    let mut pause = patience.pause;
    let mut left = patience.tries;
    loop {
        left = left.saturating_sub(1);
        let ended = tokio::time::timeout(patience.time, one_try(&connector, &address, body)).await;
        match ended.unwrap_or_else(|_| Err(Failed::ForNow("it did not answer in time".to_owned()))) {
            Ok(()) => return Ok(()),
            Err(Failed::ForGood(why)) => return Err(why),
            Err(Failed::ForNow(why)) if left == 0 => return Err(why),
            Err(Failed::ForNow(_)) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
}

async fn one_try(connector: &Connector, address: &str, body: &str) -> Result<(), Failed> {
    let mut request = HttpRequest::new(SdkBody::from(body));
    let made = request.set_method("POST").is_ok() && request.set_uri(address).is_ok();
    if !made {
        return Err(Failed::ForGood("its address is none".to_owned()));
    }
    let headers = request.headers_mut();
    headers.insert("user-agent", concat!("synapse-backup/", env!("CARGO_PKG_VERSION")));
    headers.insert("content-type", "text/plain; charset=utf-8");
    headers.insert("content-length", body.len().to_string());
    let answer = connector.call(request).await.map_err(|error| unreached(error, address))?;
    match answer.status().as_u16() {
        200..300 => Ok(()),
        status @ (408 | 429 | 500..) => Err(Failed::ForNow(format!("it answered {status}"))),
        status => Err(Failed::ForGood(format!("it answered {status}"))),
    }
}

/// The address for this ping: a query stays at the end.
fn below(url: &str, ping: Ping) -> Zeroizing<String> {
    let word = match ping {
        Ping::Start => "/start",
        Ping::Success => return Zeroizing::new(url.to_owned()),
        Ping::Failure => "/fail",
    };
    let (path, rest) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    Zeroizing::new([path.trim_end_matches('/'), word, rest].concat())
}

/// The innermost cause says most: "connection refused", a certificate's trouble. What speaks of the address is not told.
fn unreached(error: ConnectorError, address: &str) -> Failed {
    let outer = error.into_source();
    let mut cause: &(dyn StdError + 'static) = outer.as_ref();
    // An `io::Error`'s `source()` passes over what it holds.
    while let Some(inner) = match cause.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => cause.source(),
    } {
        cause = inner;
    }
    let text = cause.to_string();
    let path = address.splitn(4, '/').nth(3).unwrap_or_default();
    let why = if text.contains(address) || (!path.is_empty() && text.contains(path)) {
        "it cannot be reached".to_owned()
    } else {
        format!("it cannot be reached: {text}")
    };
    match cause.downcast_ref() {
        // The next second changes no certificate, and makes no TLS of plain HTTP.
        Some(TlsError::InvalidCertificate(_) | TlsError::InvalidMessage(_) | TlsError::PeerIncompatible(_)) => Failed::ForGood(why),
        _ => Failed::ForNow(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_stands_before_the_query() {
        for (url, ping, wanted) in [
            ("https://h/x", Ping::Success, "https://h/x"),
            ("https://h/x", Ping::Start, "https://h/x/start"),
            ("https://h/x/", Ping::Failure, "https://h/x/fail"),
            ("https://h/x?create=1", Ping::Failure, "https://h/x/fail?create=1"),
            ("https://h/x?create=1", Ping::Success, "https://h/x?create=1"),
        ] {
            assert_eq!(*below(url, ping), wanted, "{url} {ping:?}");
        }
    }
}
