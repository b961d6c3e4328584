//! A snapshot without media, or without databases, between two nights costs the next night nothing but a look.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use synapse_backup::format::keys;
use synapse_backup::ops::backup::{self, Options};
use synapse_backup::ops::{Part, Parts};
use synapse_backup::repo::Repository;
use synapse_backup::store::counters::Kind;

use crate::homeserver::{Home, noise};
use crate::hook::Hook;
use crate::rig::{backup, init, memory, options, run, ticking, verify};

async fn backup_of(repository: &Repository, home: &Home, parts: &[Part]) -> backup::Report {
    let options = Options {
        parts: parts.iter().copied().collect::<Parts>(),
        ..options()
    };
    backup::backup(repository, &home.discover(), &options, &run()).await.unwrap()
}

/// Nothing of the store can be opened any more; what must be opened would be missing.
fn hide_media(home: &Home) {
    fs::rename(home.at("var/media"), home.at("var/away")).unwrap();
    fs::create_dir(home.at("var/media")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn media_are_inherited_over_snapshots_without_media() {
    let between: [&[&[Part]]; 4] = [
        &[],
        &[&[Part::Config]],
        &[&[Part::Config, Part::Database], &[Part::Database], &[Part::Config]],
        &[&[Part::Database], &[Part::Media], &[Part::Config]],
    ];
    let home = Home::bare(crate::cluster::shared());
    let many: Vec<_> = (0..600).map(|number| (format!("Many{number:020}"), noise(number, 900))).collect();
    home.upload_all(&many);
    let gets = Arc::new(AtomicU64::new(0));
    let looked_at = Arc::clone(&gets);
    let store = Hook::new(ticking(&memory()), move |kind, key| {
        if kind == Kind::Get && key.starts_with(keys::SNAPSHOTS) {
            looked_at.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let repository = init(Arc::new(store)).await;
    backup(&repository, &home).await;
    hide_media(&home);
    for snapshots in between {
        for parts in snapshots {
            backup_of(&repository, &home, parts).await;
        }
        let before = gets.load(Ordering::SeqCst);
        let night = backup(&repository, &home).await;
        let looks = gets.load(Ordering::SeqCst) - before;
        let media = &night.media;
        assert_eq!(
            (media.files, media.unchanged, media.new, media.missing),
            (600, 600, 0, 0),
            "{snapshots:?}"
        );
        // One for each that has passed since, and one for that to go on from.
        assert!(looks <= snapshots.len() as u64 + 1, "{snapshots:?}: {looks}");
    }
    assert_eq!(verify(&repository, None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_does_not_take_is_not_looked_for() {
    let home = Home::new();
    let gets = Arc::new(AtomicU64::new(0));
    let looked_at = Arc::clone(&gets);
    let store = Hook::new(ticking(&memory()), move |kind, key| {
        if kind == Kind::Get && key.starts_with(keys::SNAPSHOTS) {
            looked_at.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let repository = init(Arc::new(store)).await;
    for _ in 0..5 {
        backup_of(&repository, &home, &[Part::Config]).await;
    }
    assert_eq!(gets.load(Ordering::SeqCst), 4, "one each, but for the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_are_inherited_when_other_kinds_were_taken() {
    let home = Home::new();
    let repository = crate::rig::fresh().await;
    let without_thumbnails = Options {
        thumbnails: false,
        ..options()
    };
    for (night, (options, files)) in [(options(), 4), (without_thumbnails.clone(), 3), (without_thumbnails, 3)]
        .into_iter()
        .enumerate()
    {
        let taken = backup::backup(&repository, &home.discover(), &options, &run()).await.unwrap();
        assert_eq!((taken.media.files, taken.problem_count), (files, 0), "night {night}");
        if night == 0 {
            hide_media(&home);
        } else {
            assert_eq!((taken.media.new, taken.media.unchanged), (0, files), "night {night}");
        }
    }
}
