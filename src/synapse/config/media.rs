//! The media section: where the store is and which storage providers may hold what it lacks.
//!
//! As `ContentRepositoryConfig` in `synapse/config/repository.py`, defaults included.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::owners::Owners;
use super::paths::Paths;
use crate::synapse::yaml::{Kind, Mapping, Value};
use crate::synapse::{Error, MediaStore, Provider, ProviderKind, S3Provider, Secret};

/// `max_upload_size` when absent.
const UPLOAD_BYTES_DEFAULT: u64 = 50 << 20;

/// Reads the section.
pub(super) fn read(map: &Mapping, paths: &Paths<'_>, owners: &Owners) -> Result<MediaStore, Error> {
    let path = match map.get("media_store_path") {
        None => paths.resolve("media_store_path", "media_store")?,
        Some(value) => paths.resolve("media_store_path", text("media_store_path", value)?)?,
    };
    let metadata = fs::metadata(&path).ok();
    Ok(MediaStore {
        providers: providers(map, paths)?,
        owner: metadata.as_ref().map(|metadata| owners.owner(metadata)),
        mode: metadata.map(|metadata| metadata.permissions().mode() & 0o7777),
        enable_local_media_storage: map.get("enable_local_media_storage").is_none_or(Value::is_true),
        enable_media_repo: !map
            .get("enable_media_repo")
            .is_some_and(|value| matches!(value.kind, Kind::Bool(false))),
        max_upload_bytes: map
            .get("max_upload_size")
            .map_or(Ok(UPLOAD_BYTES_DEFAULT), |value| size("max_upload_size", value))?,
        path,
    })
}

fn providers(map: &Mapping, paths: &Paths<'_>) -> Result<Vec<Provider>, Error> {
    if let Some(directory) = map.get("backup_media_store_path").filter(|value| value.is_true()) {
        let directory = paths.resolve("backup_media_store_path", text("backup_media_store_path", directory)?)?;
        let store_synchronous = map.get("synchronous_backup_media_store").is_some_and(Value::is_true);
        let kind = ProviderKind::FileSystem { directory };
        return Ok(vec![Provider {
            kind,
            store_local: true,
            store_remote: true,
            store_synchronous,
        }]);
    }
    let option = "media_storage_providers";
    let Some(list) = map.get(option).filter(|value| value.is_true()) else {
        return Ok(Vec::new());
    };
    let list = list.as_list().ok_or_else(|| wrong(option, "is not a list"))?;
    list.iter()
        .enumerate()
        .map(|(index, entry)| provider(&format!("{option}[{index}]"), entry, paths))
        .collect()
}

fn provider(option: &str, entry: &Value, paths: &Paths<'_>) -> Result<Provider, Error> {
    let map = entry.as_map().ok_or_else(|| wrong(option, "is not a map"))?;
    let module = map.get("module").ok_or_else(|| wrong(option, "has no `module`"))?;
    let module = text(&format!("{option}.module"), module)?;
    let none = Mapping::default();
    let config = map.get("config").and_then(Value::as_map).unwrap_or(&none);
    let kind = match module {
        "file_system"
        | "synapse.rest.media.v1.storage_provider"
        | "synapse.rest.media.v1.storage_provider.FileStorageProviderBackend"
        | "synapse.media.storage_provider.FileStorageProviderBackend" => {
            let option = format!("{option}.config.directory");
            let directory = config.get("directory").ok_or_else(|| wrong(&option, "is missing"))?;
            ProviderKind::FileSystem {
                directory: paths.resolve(&option, text(&option, directory)?)?,
            }
        }
        "s3_storage_provider.S3StorageProviderBackend" => ProviderKind::S3(s3(option, config)?),
        _ => ProviderKind::Other { module: module.to_owned() },
    };
    let flag = |name: &str| map.get(name).is_some_and(Value::is_true);
    Ok(Provider {
        kind,
        store_local: flag("store_local"),
        store_remote: flag("store_remote"),
        store_synchronous: flag("store_synchronous"),
    })
}

/// As `parse_config` of synapse-s3-storage-provider.
fn s3(option: &str, config: &Mapping) -> Result<S3Provider, Error> {
    let word = |name: &str| config.get_set(name).and_then(Value::python_str);
    let hidden = |name: &str| word(name).map(Secret::new);
    Ok(S3Provider {
        bucket: word("bucket").ok_or_else(|| wrong(&format!("{option}.config.bucket"), "is missing"))?,
        prefix: word("prefix").unwrap_or_default(),
        region: word("region_name"),
        endpoint: word("endpoint_url"),
        access_key_id: word("access_key_id"),
        secret_access_key: hidden("secret_access_key"),
        session_token: hidden("session_token"),
        sse_customer_key: hidden("sse_customer_key"),
        sse_customer_algorithm: word("sse_customer_algo"),
    })
}

/// `parse_size` of `synapse/config/_base.py`: bytes, or a text with K, M, G or T for powers of 1024.
fn size(option: &str, value: &Value) -> Result<u64, Error> {
    let bytes = match &value.kind {
        Kind::Int(number) => number.as_i64().and_then(|number| u64::try_from(number).ok()),
        Kind::Text(text) => {
            let unit = ["K", "M", "G", "T"].iter().position(|unit| text.ends_with(unit));
            let digits = if unit.is_some() { &text[..text.len() - 1] } else { text };
            let factor = 1 << unit.map_or(0, |unit| 10 * (unit + 1));
            digits
                .trim()
                .replace('_', "")
                .parse()
                .ok()
                .and_then(|number: u64| number.checked_mul(factor))
        }
        _ => None,
    };
    bytes.ok_or_else(|| wrong(option, "is not a size such as `50M`"))
}

fn text<'v>(option: &str, value: &'v Value) -> Result<&'v str, Error> {
    value
        .as_text()
        .ok_or_else(|| wrong(option, &format!("is {}, not a text", value.type_name())))
}

fn wrong(option: &str, problem: &str) -> Error {
    Error::Option {
        option: option.to_owned(),
        problem: problem.to_owned(),
    }
}
