//! Names, modes and kinds of files that are hard to bring back as they were.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use synapse_backup::format::snapshot::ProblemKind::{Missing, NotAFile};
use synapse_backup::ops::inspect;

use crate::cluster::{is_root, shared};
use crate::homeserver::{Home, noise, write};
use crate::rig::{LIMITS, backup, cat, fresh, named, restore, restore_files_to, run, shown, verify};
use crate::tree::{files, tree};

/// Names that every Linux file system takes.
fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "new\nline",
        "car\rriage",
        "tab\there",
        "quote\"double",
        "quote'single",
        "back\\slash",
        "dollar$HOME",
        "semi;colon",
        "star*",
        "-rf",
        "--to",
        " leading",
        "trailing ",
        "...",
        "..data",
        "ünïcödé",
        "日本語",
        "\u{1F510}",
        "e\u{301}",
        "\u{202e}gnp",
        "%2e%2e",
        "~",
        "a:b",
        "nul",
        ".synapse-backup-x",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(b"not \xff\xfe utf-8".to_vec());
    names.push(b"\x01\x02\x7f".to_vec());
    names.push(vec![b'L'; 255]);
    names.push("ü".repeat(127).into_bytes());
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_comes_back_as_it_was() {
    let mut home = Home::new();
    let extra = home.at("srv/extra");
    for (number, name) in names().iter().enumerate() {
        let name = OsStr::from_bytes(name);
        write(&extra.join(name), format!("file {number}").as_bytes());
        write(&extra.join("folders").join(name).join(name), format!("deeper {number}").as_bytes());
    }
    // As deep as a path may be in one go.
    let mut deep = extra.join("deep");
    while deep.as_os_str().len() < 3_500 {
        deep.push("d".repeat(200));
    }
    write(&deep.join("bottom"), b"found");
    home.files = vec![extra.clone()];
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    assert_eq!(taken.problems, []);
    assert_eq!(verify(&repository, None).await, []);
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repository, "latest", &restore_files_to(target.path())).await.unwrap();
    assert_eq!(report.problems, []);
    let came_back = target.path().join(extra.strip_prefix("/").unwrap());
    assert_eq!(tree(&came_back), tree(&extra));
    // Each can be had by the name that `ls` prints; what is not UTF-8 has none that could be typed.
    let mut listed = Vec::new();
    let mut line = |line: inspect::ItemLine| {
        listed.push(line);
        Ok(())
    };
    inspect::ls(&repository, "latest", "config/", LIMITS, &run(), &mut line)
        .await
        .unwrap();
    for item in listed.iter().filter(|item| !item.name.contains('\u{fffd}')) {
        assert_eq!(
            cat(&repository, "latest", &item.name).await.unwrap().len() as u64,
            item.bytes,
            "{}",
            item.name.escape_debug()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_modes_and_empty_folders_come_back_as_they_were() {
    let mut home = Home::new();
    let extra = home.at("srv/extra");
    for (name, mode) in [
        ("plain", 0o644),
        ("secret", 0o400),
        ("nothing", 0o000),
        ("setuid", 0o4755),
        ("setgid", 0o2755),
        ("all", 0o7777),
    ] {
        write(&extra.join(name), name.as_bytes());
        fs::set_permissions(extra.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, mode) in [("sticky", 0o1777), ("shared", 0o2770), ("closed", 0o700), ("read only", 0o555)] {
        fs::create_dir_all(extra.join(name)).unwrap();
        fs::set_permissions(extra.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    write(&extra.join("full/of/things"), b"");
    fs::set_permissions(extra.join("full"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("plain", extra.join("relative")).unwrap();
    symlink("../extra/plain", extra.join("round about")).unwrap();
    symlink(extra.join("plain"), extra.join("absolute")).unwrap();
    symlink("nowhere/at all", extra.join("dangling")).unwrap();
    symlink("loop", extra.join("loop")).unwrap();
    symlink("full", extra.join("folder")).unwrap();
    symlink(OsStr::from_bytes(b"not \xff utf-8"), extra.join("odd target")).unwrap();
    if is_root() {
        chown(extra.join("plain"), Some(1234), Some(4321)).unwrap();
        chown(extra.join("sticky"), Some(1234), Some(4321)).unwrap();
        chown(home.media("AliceFirstPicture0000001"), Some(1234), Some(4321)).unwrap();
    }
    fs::set_permissions(home.media("AliceSecondPicture000002"), fs::Permissions::from_mode(0o600)).unwrap();
    home.files = vec![extra.clone()];
    let repository = fresh().await;
    assert_eq!(backup(&repository, &home).await.problems, []);
    // Twice: what is inherited keeps its modes and owners.
    assert_eq!(backup(&repository, &home).await.problems, []);
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repository, "latest", &restore_files_to(target.path())).await.unwrap();
    assert_eq!(report.problems, []);
    let came_back = target.path().join(home.root.strip_prefix("/").unwrap());
    assert_eq!(tree(&came_back.join("srv/extra")), tree(&extra));
    assert_eq!(files(&came_back.join("var")), files(&home.at("var")));
    if is_root() {
        let given = synapse_backup::ops::restore::Options {
            owner: Some((77, 78)),
            ..restore_files_to(&target.path().join("owned"))
        };
        restore(&repository, "latest", &given).await.unwrap();
        let owners: Vec<_> = tree(&target.path().join("owned"))
            .into_values()
            .filter_map(|thing| thing.owner())
            .collect();
        assert!(owners.iter().all(|owner| *owner == (77, 78)), "{owners:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_named_and_does_not_hold_up_the_run() {
    let mut home = Home::new();
    let extra = home.at("srv/extra");
    write(&extra.join("file"), b"x");
    fifo(&extra.join("fifo"));
    drop(UnixListener::bind(extra.join("socket")).unwrap());
    symlink("/dev/zero", extra.join("zero")).unwrap();
    symlink(home.at("elsewhere"), extra.join("out of the tree")).unwrap();
    write(&home.at("elsewhere/file"), b"y");
    fifo(&home.at("etc/fifo.yaml"));
    home.files = vec![extra.clone(), home.at("not there")];
    home.write_config(
        "example.org",
        &format!("macaroon_secret_key_path: {}\n", home.at("etc/fifo.yaml").display()),
    );
    let repository = fresh().await;
    let taken = backup(&repository, &home).await;
    let item = |path: &str| format!("config{}", home.at(path).display());
    let mut expected = vec![
        (NotAFile, item("srv/extra/fifo")),
        (NotAFile, item("srv/extra/socket")),
        (NotAFile, item("srv/extra/out of the tree")),
        (NotAFile, item("etc/fifo.yaml")),
        (Missing, item("not there")),
    ];
    expected.sort();
    assert_eq!(named(&taken.problems), expected);
    assert_eq!(shown(&repository, "latest").await, expected);
    let target = tempfile::tempdir().unwrap();
    assert_eq!(
        restore(&repository, "latest", &restore_files_to(target.path()))
            .await
            .unwrap()
            .problems,
        []
    );
    assert!(target.path().join(extra.strip_prefix("/").unwrap()).join("file").is_file());
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_many_config_files_come_back_whole() {
    let mut home = Home::bare(shared());
    let extra = home.at("srv/extra");
    write(&extra.join("geo.mmdb"), &noise(1, 70 << 20));
    write(&extra.join("exactly one blob"), &noise(2, 8 << 20));
    write(&extra.join("one byte more"), &noise(3, (8 << 20) + 1));
    for number in 0..2_000_u32 {
        write(&extra.join(format!("many/{}/{number}", number % 40)), &number.to_le_bytes());
    }
    home.files = vec![extra.clone()];
    let repository = fresh().await;
    assert_eq!(backup(&repository, &home).await.problems, []);
    assert_eq!(verify(&repository, None).await, []);
    let target = tempfile::tempdir().unwrap();
    let report = restore(&repository, "latest", &restore_files_to(target.path())).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(tree(&target.path().join(extra.strip_prefix("/").unwrap())), tree(&extra));
}
