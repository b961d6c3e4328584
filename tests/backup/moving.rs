//! A homeserver that moves: to a newer PostgreSQL, to other paths, to another user; and onto a machine that has nothing yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use synapse_backup::ops;
use synapse_backup::ops::restore::{self, DatabaseTarget, Options};

use crate::cluster::{Cluster, is_root, shared};
use crate::homeserver::{Home, noise, rows, without_one_time_keys};
use crate::rig::{backup, conninfo, fresh, restore, restore_to, run};
use crate::tree::{Thing, files};

/// The same but for who owns it.
fn without_owners(mut files: BTreeMap<PathBuf, Thing>) -> BTreeMap<PathBuf, Thing> {
    for thing in files.values_mut() {
        if let Thing::File { owner, .. } | Thing::Folder { owner, .. } = thing {
            *owner = (0, 0);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn from_14_to_18_other_paths_and_another_user_everything_is_there() {
    // It ends with this process.
    let old: &'static Cluster = Box::leak(Box::new(Cluster::of_version(14)));
    let new = Cluster::of_version(18);
    let (home, repository) = (Home::bare(old), fresh().await);
    home.upload("AliceFirstPicture0000001", &noise(1, 40_000));
    home.thumbnail("AliceFirstPicture0000001", &noise(3, 700));
    let before = (files(&home.root), rows(old, &home.database));
    backup(&repository, &home).await;

    let target = tempfile::tempdir().unwrap();
    let elsewhere = target.path().join("srv/matrix");
    let ourselves = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = if is_root() { (61_234, 61_235) } else { ourselves };
    let options = Options {
        to: None,
        databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(conninfo(&new, "moved")))],
        create_database: true,
        path_map: vec![(home.root.clone(), elsewhere.clone())],
        owner: Some(owner),
        ..restore_to(target.path(), &new, "moved")
    };
    let report = restore(&repository, "latest", &options).await.unwrap();
    assert_eq!(report.problems, []);
    let moved = files(&elsewhere);
    assert!(
        moved.values().all(|thing| thing.owner().is_none_or(|one| one == owner)),
        "{moved:#?}"
    );
    assert_eq!(without_owners(moved), without_owners(before.0));
    assert_eq!(rows(&new, "moved"), without_one_time_keys(before.1));
    assert!(new.psql("moved", "SHOW server_version").starts_with("18."));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_new_machine_the_commands_that_make_role_and_database_are_told() {
    let (home, repository) = (Home::new(), fresh().await);
    backup(&repository, &home).await;
    let target = tempfile::tempdir().unwrap();
    let poor = shared().role("poor", "x");
    let as_role = |role: &str| conninfo(shared(), "not made yet").replace("user=postgres", &format!("user='{role}'"));
    for (role, create_database) in [("nobody yet", true), (poor.as_str(), true), (poor.as_str(), false)] {
        for dry_run in [false, true] {
            if create_database && dry_run {
                // It is told in the plan, which is no error.
                continue;
            }
            let options = Options {
                databases: vec![("synapse".into(), DatabaseTarget::ConnInfo(as_role(role)))],
                create_database,
                dry_run,
                ..restore_to(&target.path().join("to"), shared(), "")
            };
            let error = restore::restore(&repository, "latest", &options, &run()).await.unwrap_err();
            let hint = ops::hint_of(&error).unwrap_or_default();
            let word = if role.contains(' ') { format!("'{role}'") } else { role.to_owned() };
            let wanted = if role == "nobody yet" {
                format!("--createdb --pwprompt {word}")
            } else {
                format!("--locale=C --template=template0 --owner={word} 'not made yet'")
            };
            assert!(hint.contains(&wanted), "{role}: {error:#}: {hint}");
        }
    }
    assert!(!target.path().join("to").exists(), "nothing was written");
}
