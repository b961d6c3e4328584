//! A file, link or folder of the configuration in the snapshot document.
//!
//! Which files these are, and what part each plays, is `synapse`'s knowledge; here they are only written down.

use serde::{Deserialize, Serialize};

use super::super::list::List;
use super::super::{BlobId, ItemPath, octal};

/// One config item, with what restore needs to put it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ConfigFields", into = "ConfigFields")]
pub struct ConfigItem {
    /// Absolute, on the machine that was backed up.
    pub path: ItemPath,
    /// File, link or folder.
    pub kind: ConfigKind,
    /// The part it plays.
    pub role: ConfigRole,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner, by number.
    pub uid: u32,
    /// Group, by number.
    pub gid: u32,
    /// Owner, by name, where it has one.
    pub owner: Option<String>,
    /// Group, by name, where it has one.
    pub group: Option<String>,
    /// Length of a file; 0 for others.
    pub bytes: u64,
    /// Of a file's content; `None` for others and for what could not be read.
    pub sha256: Option<BlobId>,
    /// A file's content.
    pub list: List,
    /// Where a link points.
    pub target: Option<ItemPath>,
}

/// What a config item is in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigKind {
    /// A regular file.
    File,
    /// A symbolic link; it is saved as a link.
    Symlink,
    /// A folder, for its mode and owner.
    Directory,
    /// A kind that this program does not know yet: restore must say that it left it out.
    #[serde(other)]
    Unknown,
}

/// The part that a config item plays. Restore writes `signing_key` and `homeserver` last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigRole {
    /// homeserver.yaml and its like.
    Homeserver,
    /// The private signing key.
    SigningKey,
    /// Another file that the configuration names.
    Config,
    /// A file with a secret.
    Secret,
    /// Of a template folder.
    Template,
    /// A worker's configuration.
    Worker,
    /// Anything else; also a role that this program does not know yet.
    #[serde(other)]
    Other,
}

/// A config item's JSON fields.
#[derive(Serialize, Deserialize)]
struct ConfigFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    kind: ConfigKind,
    role: ConfigRole,
    #[serde(with = "octal")]
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<BlobId>,
    #[serde(default, skip_serializing_if = "is_empty")]
    list: List,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<ItemPath>,
}

fn is_empty(list: &List) -> bool {
    *list == List::default()
}

impl From<ConfigItem> for ConfigFields {
    fn from(item: ConfigItem) -> Self {
        let (path, path_base64) = item.path.fields();
        Self {
            path: path.map(str::to_owned),
            path_base64,
            kind: item.kind,
            role: item.role,
            mode: item.mode,
            uid: item.uid,
            gid: item.gid,
            owner: item.owner,
            group: item.group,
            bytes: item.bytes,
            sha256: item.sha256,
            list: item.list,
            target: item.target,
        }
    }
}

impl TryFrom<ConfigFields> for ConfigItem {
    type Error = &'static str;

    fn try_from(fields: ConfigFields) -> Result<Self, Self::Error> {
        if fields.list.bytes != fields.bytes && fields.list != List::default() {
            return Err("bytes is not that of list");
        }
        Ok(Self {
            path: ItemPath::from_fields(fields.path, fields.path_base64)?,
            kind: fields.kind,
            role: fields.role,
            mode: fields.mode,
            uid: fields.uid,
            gid: fields.gid,
            owner: fields.owner,
            group: fields.group,
            bytes: fields.bytes,
            sha256: fields.sha256,
            list: fields.list,
            target: fields.target,
        })
    }
}
