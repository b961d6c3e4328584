//! Names of users and groups and homes of users, from `/etc/passwd` and `/etc/group` of this host.
//!
//! Users that only a directory service knows stay numbers; restore then goes by the number.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::load::read_bounded;
use crate::synapse::Owner;

const BYTES_MAX: u64 = 16 << 20;

/// Both tables, read once.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
    homes: HashMap<u32, String>,
}

impl Owners {
    /// Those of this host; empty where the files cannot be read.
    pub(super) fn of_this_host() -> Self {
        let table = |path: &str| read_bounded(path.as_ref(), BYTES_MAX).unwrap_or_default();
        Self::of(&table("/etc/passwd"), &table("/etc/group"))
    }

    fn of(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: parse(passwd, NAME),
            groups: parse(group, NAME),
            homes: parse(passwd, HOME),
        }
    }

    /// The home directory of a user, if it has one.
    pub(super) fn home(&self, uid: u32) -> Option<PathBuf> {
        self.homes.get(&uid).map(PathBuf::from).filter(|home| home.is_absolute())
    }

    /// Who owns what `metadata` describes.
    pub(super) fn owner(&self, metadata: &Metadata) -> Owner {
        let (uid, gid) = (metadata.uid(), metadata.gid());
        Owner {
            uid,
            gid,
            user: self.users.get(&uid).cloned(),
            group: self.groups.get(&gid).cloned(),
        }
    }
}

/// Fields of a line: `name:password:number:…`, of a user `name:password:number:group:comment:home:shell`.
const NAME: usize = 0;
const NUMBER: usize = 2;
const HOME: usize = 5;

/// A field by the number; the first line of a number that has a name counts, as for the C library.
fn parse(bytes: &[u8], field: usize) -> HashMap<u32, String> {
    let mut found = HashMap::new();
    for line in bytes.split(|&c| c == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let fields: Vec<&str> = line.split(':').collect();
        let number = fields.get(NUMBER).and_then(|number| number.parse().ok());
        if let (Some(number), Some(value)) = (number, fields.get(field))
            && !fields[NAME].is_empty()
        {
            found.entry(number).or_insert_with(|| (*value).to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts_and_broken_lines_do_not_matter() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n\n# comment\n+::::::\nbad\xff:x:7:\nsyn:x:991:\nno:x:7:7::nowhere:\n";
        let owners = Owners::of(passwd, b"");
        assert_eq!(owners.users.get(&0).map(String::as_str), Some("root"));
        assert_eq!(owners.users.get(&991).map(String::as_str), Some("syn"));
        assert_eq!(owners.users.len(), 3);
        assert_eq!(owners.home(0), Some(PathBuf::from("/root")));
        assert_eq!((owners.home(991), owners.home(7), owners.home(8)), (None, None, None));
    }
}
