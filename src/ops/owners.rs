//! Whose files are: names to numbers on this host, since the same user may have another number here.
//!
//! Read from the files of passwd(5) and group(5) once; users that only a directory service knows keep their old numbers,
//! or are given with `--owner` as numbers.

use std::collections::HashMap;
use std::fs;

/// Names of users and groups, looked up once each.
#[derive(Debug)]
pub struct Owners {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
        }
    }
}

impl Owners {
    /// The numbers of a user and group: by name where this host knows it, else as they were.
    pub fn ids(&self, owner: Option<&str>, group: Option<&str>, uid: u32, gid: u32) -> (u32, u32) {
        let user = owner.and_then(|name| self.users.get(name)).copied();
        let group = group.and_then(|name| self.groups.get(name)).copied();
        (user.unwrap_or(uid), group.unwrap_or(gid))
    }

    /// The number of a user, by name or as a number.
    pub fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied().or_else(|| name.parse().ok())
    }

    /// The number of a group, by name or as a number.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied().or_else(|| name.parse().ok())
    }
}

/// `name:x:number:…` in both files (passwd(5), group(5)).
fn read(path: &str) -> HashMap<String, u32> {
    let text = fs::read(path).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let number = fields.nth(1)?.parse().ok()?;
        Some((name, number))
    };
    String::from_utf8_lossy(&text).lines().filter_map(line).collect()
}
