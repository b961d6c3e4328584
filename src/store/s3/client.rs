//! The SDK's client for given settings: endpoint, region, TLS, timeouts, and everything switched off that we do ourselves.
//!
//! Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY` …), trusted authorities from the system or
//! `SSL_CERT_FILE`, and one more from `s3.ca_file`. What is *not* here: credentials (`credentials`), retries (`retry`).

use std::path::Path;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider as TlsProvider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_types::service_config::ServiceConfigKey;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::Error;
use super::super::url::without_secrets;
use super::provider::Provider;
use super::{S3Options, credentials};

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// S3 closes idle connections after about 20 s; a request on one that is just being closed would fail.
const IDLE_TIME: Duration = Duration::from_secs(15);
/// A download that stands still for so long is begun again.
const STALL_TIME: Duration = Duration::from_secs(20);

/// A client, and what was found out on the way.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) client: Client,
    pub(super) provider: Provider,
    pub(super) is_https: bool,
}

pub(super) async fn build(options: &S3Options, url: &str) -> Result<Built, Error> {
    let http = http_client(options.ca_file.as_deref()).await?;
    let named = region(options).await;
    let shared = load(options, http.clone(), named.clone()).await;
    let endpoint = options.endpoint.clone().or_else(|| endpoint_of_environment(&shared));
    let host = endpoint.as_deref().map(host_of).transpose()?;
    let provider = options.provider.unwrap_or_else(|| Provider::of_host(host.as_deref()));
    let region = named.unwrap_or_else(|| Region::new(provider.region(host.as_deref()).to_owned()));
    let is_amazon = Provider::of_host(host.as_deref()) == Provider::Aws;
    let credentials = credentials::provider(options, url, region.clone(), is_amazon).await?;

    let config = aws_sdk_s3::config::Builder::from(&shared)
        .http_client(http)
        .region(region)
        .credentials_provider(credentials)
        .force_path_style(options.path_style.unwrap_or_else(|| provider.path_style()))
        .retry_config(RetryConfig::disabled())
        // Also what little state the SDK keeps without retries is shared with nobody.
        .retry_partition(RetryPartition::new("synapse-backup"))
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIME).build())
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .upload_enabled(false)
                .grace_period(STALL_TIME)
                .build(),
        )
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let is_https = !endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let config = match endpoint {
        Some(endpoint) => config.endpoint_url(endpoint),
        None => config,
    };
    Ok(Built {
        client: Client::from_conf(config.build()),
        provider,
        is_https,
    })
}

/// The settings', the environment's or the profile's.
async fn region(options: &S3Options) -> Option<Region> {
    if let Some(region) = &options.region {
        return Some(Region::new(region.clone()));
    }
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return Some(region);
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    profile.build().region().await
}

/// Without a region the SDK looks for one in the machine's metadata (IMDS), and warns where there is none. This one is not used.
const SOME_REGION: Region = Region::from_static("us-east-1");

/// What environment and profile say, but for the credentials and the region.
async fn load(options: &S3Options, http: SharedHttpClient, region: Option<Region>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .no_credentials()
        .region(region.unwrap_or(SOME_REGION));
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or the profile's.
fn endpoint_of_environment(shared: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    let of_s3 = shared.service_config().and_then(|config| config.load_config(key));
    of_s3.or_else(|| shared.endpoint_url().map(str::to_owned))
}

/// The host of an endpoint, which must be a URL.
fn host_of(endpoint: &str) -> Result<String, Error> {
    let bad = |why: &str| Error::BadUrl {
        message: format!("s3.endpoint `{}` {why}", without_secrets(endpoint).escape_debug()),
    };
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| bad("must begin with https:// or http://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') || rest.contains(['?', '#', ' ']) {
        return Err(bad("must be a host and port, like https://s3.example.org:9000"));
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority
            .split_once(':')
            .map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(bad("must be a host and port, like https://s3.example.org:9000"));
    }
    Ok(host.to_owned())
}

/// The SDK's default client would do but for the authority of one's own and the idle time; a custom one must be
/// told of the proxies again.
async fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient, Error> {
    let mut trust = TrustStore::default();
    if let Some(path) = ca_file {
        trust = trust.with_pem_certificate(read_certificates(path).await?);
    }
    let tls = TlsContext::builder().with_trust_store(trust).build();
    let tls = tls.map_err(|error| Error::BadUrl {
        message: format!("TLS cannot be set up: {error}"),
    })?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(TlsProvider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .proxy_config(ProxyConfig::from_env())
            .pool_idle_timeout(IDLE_TIME);
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    }))
}

/// Read and check them here: the SDK would panic on a file that holds none, or a broken one.
async fn read_certificates(path: &Path) -> Result<Vec<u8>, Error> {
    let bad = |why: String| Error::BadUrl {
        message: format!("s3.ca_file {}: {why}", path.display()),
    };
    let pem = tokio::fs::read(path).await.map_err(|error| bad(error.to_string()))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(format!("this is not PEM: {error}")))?;
        store
            .add(certificate)
            .map_err(|error| bad(format!("a certificate in it is not valid: {error}")))?;
    }
    if store.is_empty() {
        Err(bad("there is no certificate (PEM) in it".to_owned()))
    } else {
        Ok(pem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_with_a_host() {
        let good = [
            ("http://127.0.0.1:9000", "127.0.0.1"),
            ("https://s3.example.org", "s3.example.org"),
            ("https://s3.example.org/", "s3.example.org"),
            ("https://x.supabase.co/storage/v1/s3", "x.supabase.co"),
            ("http://[::1]:9000", "::1"),
        ];
        for (endpoint, host) in good {
            assert_eq!(host_of(endpoint).ok().as_deref(), Some(host), "{endpoint}");
        }
        for endpoint in [
            "",
            "s3.example.org",
            "s3://x",
            "http://",
            "https://:9000",
            "http://host:port",
            "http://key:secret@host",
            "key:secret@host",
            "http://a b",
        ] {
            let message = host_of(endpoint).unwrap_or_else(|error| error.to_string());
            assert!(message.starts_with("s3.endpoint `") && !message.contains("secret"), "{message}");
        }
    }
}
