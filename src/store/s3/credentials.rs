//! Who we are: the usual chain of AWS, without the wait for a metadata service that is not there.
//!
//! Environment, profile, web identity, container; the machine's own role (IMDS) only where the store is Amazon's,
//! because elsewhere its address leads nowhere and costs seconds. A profile named in the settings is the only source then:
//! keys that happen to be in the environment do not replace it.

use std::time::Duration;

use aws_config::environment::credentials::EnvironmentVariableCredentialsProvider;
use aws_config::imds;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region, SharedCredentialsProvider};

use super::super::Error;
use super::{AccessKey, S3Options};

/// For a program or a service that hands out credentials.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// For the metadata service, which answers in milliseconds where there is one.
const METADATA_TIME: Duration = Duration::from_millis(1500);

/// The provider for these settings, after it has shown that it gives something.
pub(super) async fn provider(options: &S3Options, url: &str, region: Region, is_amazon: bool) -> Result<SharedCredentialsProvider, Error> {
    let provider = match &options.access_key {
        Some(AccessKey { id, secret, session_token }) => {
            SharedCredentialsProvider::new(Credentials::new(id, secret, session_token.clone(), None, "settings"))
        }
        None => chain(options.profile.as_deref(), region, is_amazon),
    };
    match tokio::time::timeout(ANSWER_TIME, provider.provide_credentials()).await {
        Ok(Ok(_)) => Ok(provider),
        Ok(Err(error)) => Err(refused(options, url, &super::classify::chain_text(&error))),
        Err(_) => Err(refused(options, url, "what should give them does not answer")),
    }
}

fn chain(profile: Option<&str>, region: Region, is_amazon: bool) -> SharedCredentialsProvider {
    let config = ProviderConfig::without_region().with_region(Some(region));
    let mut profiles = ProfileFileCredentialsProvider::builder().configure(&config);
    if let Some(profile) = profile {
        profiles = profiles.profile_name(profile);
        return SharedCredentialsProvider::new(CredentialsProviderChain::first_try("Profile", profiles.build()));
    }
    let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config).build();
    let container = aws_config::ecs::EcsCredentialsProvider::builder().configure(&config).build();
    let mut chain = CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
        .or_else("Profile", profiles.build())
        .or_else("WebIdentityToken", web_identity)
        .or_else("EcsContainer", container);
    if is_amazon {
        let client = imds::Client::builder()
            .configure(&config)
            .max_attempts(1)
            .connect_timeout(METADATA_TIME)
            .read_timeout(METADATA_TIME)
            .operation_timeout(METADATA_TIME)
            .build();
        let machine = imds::credentials::ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(client)
            .build();
        chain = chain.or_else("Ec2InstanceMetadata", machine);
    }
    SharedCredentialsProvider::new(chain)
}

fn refused(options: &S3Options, url: &str, text: &str) -> Error {
    let none = text.contains("not enabled") || text.contains("no providers in chain");
    let is_last_resort = text.contains("IMDS");
    let message = match &options.profile {
        Some(profile) => format!("the profile `{profile}` gives none: {text}"),
        None if none => "none were found".to_owned(),
        None if is_last_resort => format!("none were found, nor has this machine a role: {text}"),
        None => text.to_owned(),
    };
    let hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws/credentials in s3.profile or AWS_PROFILE; \
                web identity and container roles work too, the machine's role only on Amazon";
    Error::Unauthenticated {
        url: url.to_owned(),
        message,
        hint: hint.to_owned(),
    }
}
