//! Every option of Synapse that names a file or a directory, as one table, and how to find its values.
//!
//! The options are those of Synapse 1.163 (`synapse/config/*.py`, each through `read_file`, `abspath` or a library) and
//! the legacy ones that older releases knew. `[]` goes through a list, `*` through the values of a map. Media, databases
//! and the signing key's default have files of their own. What is left out on purpose: `pid_file`, log files, sockets.

use crate::synapse::Role;
use crate::synapse::yaml::{Mapping, Value};

/// A file or a whole directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    File,
    Directory,
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Where it stands: `oidc_providers[].client_secret_path`.
    pub(super) option: &'static str,
    pub(super) what: What,
    pub(super) role: Role,
    pub(super) secret: bool,
}

const fn file(option: &'static str, role: Role, secret: bool) -> Row {
    Row {
        option,
        what: What::File,
        role,
        secret,
    }
}

const fn secret(option: &'static str) -> Row {
    file(option, Role::Secret, true)
}

const fn directory(option: &'static str, role: Role) -> Row {
    Row {
        option,
        what: What::Directory,
        role,
        secret: false,
    }
}

/// The table. `docs/what-is-saved.md` tells the same to users.
pub(super) const TABLE: &[Row] = &[
    file("signing_key_path", Role::SigningKey, true),
    secret("key_server_signing_keys_path"),
    secret("macaroon_secret_key_path"),
    secret("form_secret_path"),
    secret("registration_shared_secret_path"),
    secret("worker_replication_secret_path"),
    secret("turn_shared_secret_path"),
    secret("recaptcha_private_key_path"),
    file("recaptcha_public_key_path", Role::Secret, false),
    secret("redis.password_path"),
    file("redis.certificate_file", Role::Certificate, false),
    file("redis.private_key_file", Role::Certificate, true),
    file("redis.ca_file", Role::Certificate, false),
    directory("redis.ca_path", Role::Certificate),
    secret("matrix_authentication_service.secret_path"),
    // Removed in Synapse 1.157.
    secret("experimental_features.msc3861.client_secret_path"),
    secret("experimental_features.msc3861.admin_token_path"),
    secret("oidc_providers[].client_secret_path"),
    secret("oidc_providers[].client_secret_jwt_key.key_file"),
    // `oidc_config` is the legacy form for a single provider.
    secret("oidc_config.client_secret_path"),
    secret("oidc_config.client_secret_jwt_key.key_file"),
    file("saml2_config.config_path", Role::Named, true),
    file("saml2_config.sp_config.key_file", Role::Certificate, true),
    file("saml2_config.sp_config.cert_file", Role::Certificate, false),
    file("saml2_config.sp_config.encryption_keypairs[].key_file", Role::Certificate, true),
    file("saml2_config.sp_config.encryption_keypairs[].cert_file", Role::Certificate, false),
    file("saml2_config.sp_config.metadata.local[]", Role::Named, false),
    directory("saml2_config.sp_config.attribute_map_dir", Role::Named),
    file("tls_certificate_path", Role::Certificate, false),
    file("tls_private_key_path", Role::Certificate, true),
    file("federation_custom_ca_list[]", Role::Certificate, false),
    file("log_config", Role::LogConfig, false),
    file("worker_log_config", Role::LogConfig, false),
    file("app_service_config_files[]", Role::AppService, true),
    directory("templates.custom_template_directory", Role::Template),
    directory("user_consent.template_dir", Role::Template),
    directory("email.template_dir", Role::Template),
    directory("sso.template_dir", Role::Template),
    directory("account_validity.template_dir", Role::Template),
    file("oembed.additional_providers[]", Role::Named, false),
    file("manhole_settings.ssh_priv_key_path", Role::Secret, true),
    file("manhole_settings.ssh_pub_key_path", Role::Secret, false),
];

/// The keywords of libpq whose value is a file; the same below `database.args` and each of `databases`.
pub(super) const LIBPQ: &[Row] = &[
    file("passfile", Role::Database, true),
    file("servicefile", Role::Database, true),
    file("sslkey", Role::Database, true),
    file("sslcert", Role::Database, false),
    file("sslrootcert", Role::Database, false),
    file("sslcrl", Role::Database, false),
    directory("sslcrldir", Role::Database),
];

/// Where `LIBPQ` applies.
pub(super) const DATABASES: &[&str] = &["database.args", "databases.*.args"];

/// Values that libpq does not take for a path: its built-in store of authorities, and `engine:key`.
pub(super) fn is_no_path(keyword: &str, text: &str) -> bool {
    (keyword == "sslrootcert" && text == "system") || (keyword == "sslkey" && !text.starts_with('/') && text.contains(':'))
}

/// All values at `pattern`, each with its own name, as in `oidc_providers[0].client_secret_path`.
pub(super) fn select<'v>(map: &'v Mapping, pattern: &str) -> Vec<(String, &'v Value)> {
    let mut segments = pattern.split('.');
    let first = segments.next().unwrap_or_default();
    let mut found = step_map(map, "", first);
    for segment in segments {
        found = found
            .iter()
            .flat_map(|(name, value)| value.as_map().map_or_else(Vec::new, |map| step_map(map, name, segment)))
            .collect();
    }
    found
}

fn step_map<'v>(map: &'v Mapping, name: &str, segment: &str) -> Vec<(String, &'v Value)> {
    let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    if segment == "*" {
        return map
            .iter()
            .filter_map(|(key, value)| Some((join(&key.python_str()?), value)))
            .collect();
    }
    let key = segment.strip_suffix("[]");
    let Some(value) = map.get(key.unwrap_or(segment)) else {
        return Vec::new();
    };
    match key {
        None => vec![(join(segment), value)],
        Some(key) => {
            let items = value.as_list().unwrap_or_default();
            items
                .iter()
                .enumerate()
                .map(|(index, item)| (format!("{}[{index}]", join(key)), item))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::synapse::yaml;

    #[test]
    fn a_pattern_goes_through_lists_and_maps_and_names_what_it_finds() {
        let value = yaml::parse(b"a: [{b: 1}, {c: 2}, x, {b: 3}]\nm: {one: {z: 4}, 2: {z: 5}, t: 6}\nl: [7, 8]\nn: null\n").unwrap();
        let map = value.as_map().unwrap();
        let cases = [
            ("a[].b", vec!["a[0].b", "a[3].b"]),
            ("m.*.z", vec!["m.one.z", "m.2.z"]),
            ("l[]", vec!["l[0]", "l[1]"]),
            ("n", vec!["n"]),
            ("n.x", vec![]),
            ("a.b", vec![]),
            ("l.x[]", vec![]),
            ("none[].x", vec![]),
        ];
        for (pattern, names) in cases {
            let found: Vec<String> = select(map, pattern).into_iter().map(|(name, _)| name).collect();
            assert_eq!(found, names, "{pattern}");
        }
    }

    #[test]
    fn no_option_stands_in_the_table_twice() {
        let mut options: Vec<_> = TABLE.iter().map(|row| row.option).collect();
        options.sort_unstable();
        assert!(options.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
