//! `doctor --media`: the store and the rows held against each other, both ways.

use std::fs;
use std::path::Path;

use synapse_backup::ops::doctor::{self, MediaWalk, Verdict, WalkOptions};

use crate::homeserver::{Home, item_of, noise, path_of, write};
use crate::rig::{LIMITS, run, tools};

async fn walk(home: &Home, memory_bytes: u64) -> MediaWalk {
    let options = WalkOptions {
        tools: tools(),
        // Everything in the store is older than that.
        now: "2100-01-01T00:00:00Z".parse().unwrap(),
        memory_bytes,
        spool_folder: std::env::temp_dir(),
    };
    doctor::walk_media(&home.discover(), &options, &run()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_row_and_rows_without_a_file_are_found() {
    let home = Home::new();
    let clean = walk(&home, 0).await;
    assert_eq!(
        (clean.rows, clean.files, clean.missing, clean.without_row),
        (4, 4, 0, 0),
        "{clean:?}"
    );
    assert_eq!(clean.check().verdict, Verdict::Ok);

    let many: Vec<_> = (0..300).map(|number| (format!("Many{number:020}"), noise(number, 50))).collect();
    home.upload_all(&many);
    let strays = [
        "local_content/AA/AA/first",
        "local_content/zz/zz/last",
        "remote_content/matrix.org/aa/bb/cached",
        "url_cache/2024-01-31/x",
    ];
    for stray in strays {
        write(&home.at("var/media").join(stray), b"stray");
    }
    // Lies in the store, and is nothing of Synapse's.
    write(&home.at("var/media/lost+found"), b"x");
    for number in [0, 150, 299] {
        fs::remove_file(home.media(&many[number].0)).unwrap();
    }
    fs::remove_file(home.media("BobEmptyFile000000000003")).unwrap();
    fs::create_dir(home.media("BobEmptyFile000000000003")).unwrap();
    fs::remove_file(home.thumbnail_path("AliceFirstPicture0000001")).unwrap();
    home.row("../../etc/passwd", b"x");
    home.row_saying("NotUploadedYet0000000001", None, None);
    for memory_bytes in [0, LIMITS.memory_bytes] {
        let walk = walk(&home, memory_bytes).await;
        let counts = (
            walk.rows,
            walk.files,
            walk.missing,
            walk.caches_missing,
            walk.bad_ids,
            walk.without_row,
            walk.without_row_bytes,
        );
        assert_eq!(counts, (304, 303, 4, 1, 1, 4, 20), "{walk:?}");
        let mut missing: Vec<String> = [0, 150, 299].iter().map(|&number: &usize| item_of(&many[number].0)).collect();
        missing.push(item_of("BobEmptyFile000000000003"));
        missing.sort();
        let mut named = walk.missing_items.clone();
        named.sort();
        assert_eq!(named, missing);
        assert_eq!(walk.without_row_items, strays.map(|stray| format!("media/{stray}")));
        let check = walk.check();
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(
            check.message.contains("4 rows of uploads have no file") && check.message.contains("4 files have no row"),
            "{}",
            check.message
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_has_is_not_missing_and_what_is_young_is_no_stray() {
    let home = Home::new();
    let provider = home.at("mnt/provider");
    let moved = path_of("AliceFirstPicture0000001");
    fs::create_dir_all(provider.join(&moved).parent().unwrap()).unwrap();
    fs::rename(home.media("AliceFirstPicture0000001"), provider.join(&moved)).unwrap();
    let with = |providers: &str| home.write_config("example.org", &format!("media_storage_providers: [{providers}]\n"));
    with(&format!(
        "{{ module: file_system, config: {{ directory: {} }} }}",
        provider.display()
    ));
    let found = walk(&home, 0).await;
    assert_eq!((found.elsewhere, found.missing), (1, 0), "{found:?}");
    with("{ module: s3_storage_provider.S3StorageProviderBackend, config: { bucket: media } }");
    let found = walk(&home, 0).await;
    assert_eq!((found.perhaps_in_a_bucket, found.missing), (1, 0), "{found:?}");
    write(
        &home.at("var/media").join(Path::new("local_content/aa/aa/new")),
        b"its row comes in a moment",
    );
    let options = WalkOptions {
        tools: tools(),
        now: "2001-01-01T00:00:00Z".parse().unwrap(),
        memory_bytes: 0,
        spool_folder: std::env::temp_dir(),
    };
    let found = doctor::walk_media(&home.discover(), &options, &run()).await.unwrap();
    assert_eq!((found.young, found.without_row), (1, 0), "{found:?}");
}
