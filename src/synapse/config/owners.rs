//! Names of users and groups, from `/etc/passwd` and `/etc/group` of this host.
//!
//! Users that only a directory service knows stay numbers; restore then goes by the number.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use super::load::read_bounded;
use crate::synapse::Owner;

const BYTES_MAX: u64 = 16 << 20;

/// Both tables, read once.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Owners {
    /// Those of this host; empty where the files cannot be read.
    pub(super) fn of_this_host() -> Self {
        let table = |path: &str| {
            read_bounded(path.as_ref(), BYTES_MAX)
                .map(|bytes| parse(&bytes))
                .unwrap_or_default()
        };
        Self {
            users: table("/etc/passwd"),
            groups: table("/etc/group"),
        }
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

/// `name:password:number:…` in each line; the first name of a number counts, as for the C library.
fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in bytes.split(|&c| c == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let mut fields = line.split(':');
        if let (Some(name), Some(number)) = (fields.next(), fields.nth(1).and_then(|number| number.parse().ok()))
            && !name.is_empty()
        {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts_and_broken_lines_do_not_matter() {
        let names = parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n\n# comment\n+::::::\nbad\xff:x:7:\nsyn:x:991:\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&991).map(String::as_str), Some("syn"));
        assert_eq!(names.len(), 2);
    }
}
