//! Paths that are Synapse's and paths that must never be one.

use super::*;

#[test]
fn paths_that_synapse_makes_are_safe_and_tell_their_id() {
    for (kind, path, id) in [
        (
            MediaKind::Local,
            "local_content/Ab/cD/efghijklmnopqrstuvwx",
            "AbcDefghijklmnopqrstuvwx",
        ),
        (
            MediaKind::LocalThumbnail,
            "local_thumbnails/Ab/cD/e/320-240-image-svg+xml-scale",
            "AbcDe",
        ),
        (MediaKind::Remote, "remote_content/[2001:db8::1]:8448/aa/bb/c", "aabbc"),
        (
            MediaKind::RemoteThumbnail,
            "remote_thumbnail/matrix.org/aa/bb/c/32-32-image-png-crop",
            "aabbc",
        ),
        (
            MediaKind::UrlCache,
            "url_cache/2024-01-31/abcdefghijklmnop",
            "2024-01-31_abcdefghijklmnop",
        ),
        (MediaKind::UrlCache, "url_cache/aa/bb/cdef", "aabbcdef"),
        (
            MediaKind::UrlCacheThumbnail,
            "url_cache_thumbnails/2024-01-31/abc/32-32-image-png-crop",
            "2024-01-31_abc",
        ),
    ] {
        assert!(path::is_safe(kind, path), "{path}");
        assert_eq!(path::file_id(kind, path).as_deref(), Some(id), "{path}");
    }
}

#[test]
fn an_id_that_would_leave_its_folder_is_never_a_path() {
    let nested = |id: &str| {
        let part = |from: usize, to: usize| id.chars().skip(from).take(to - from).collect::<String>();
        format!("local_content/{}/{}/{}", part(0, 2), part(2, 4), part(4, usize::MAX))
    };
    for id in [
        "",
        "a",
        "abcd",
        "../../etc/passwd",
        "....x",
        "..abc",
        "ab/cd/ef",
        "abcd/ef",
        "ab\ncdef",
        "äbcdefgh",
        "abcd..",
        "abcd.",
        "abcd e",
        "abcd\0e",
        "a\\bcdef",
    ] {
        let row = vec![Some(nested(id)), Some("1".into()), None];
        assert!(matches!(item(MediaKind::Local, row), MediaItem::BadId { .. }), "{id:?}");
    }
    assert!(!path::is_safe(MediaKind::Local, "local_thumbnails/aa/bb/c"));
    assert!(!path::is_safe(MediaKind::Remote, "remote_content/../aa/bb/c"));
    assert!(!path::is_safe(
        MediaKind::Local,
        &format!("local_content/aa/bb/{}", "c".repeat(256))
    ));
}

#[test]
fn lengths_and_hashes_are_taken_only_when_they_are_some() {
    let sha256 = "ab".repeat(32);
    for (length, hash, bytes, expected) in [
        (Some("12"), Some(sha256.as_str()), Some(12), Some([0xab; 32])),
        (Some("0"), None, Some(0), None),
        (None, Some("abc"), None, None),
        (Some("-1"), Some("zz"), None, None),
    ] {
        let row = vec![
            Some("local_content/aa/bb/c".into()),
            length.map(str::to_owned),
            hash.map(str::to_owned),
        ];
        let file = MediaRow {
            path: "local_content/aa/bb/c".into(),
            bytes,
            sha256: expected,
            kind: MediaKind::Local,
        };
        assert_eq!(item(MediaKind::Local, row), MediaItem::File(file));
    }
}

#[test]
fn kinds_come_in_the_order_of_their_paths() {
    let mut folders: Vec<String> = MediaKind::ALL.iter().map(|kind| format!("{}/", kind.folder())).collect();
    let given = folders.clone();
    folders.sort();
    assert_eq!(folders, given);
    assert_eq!(MediaChoice::default().kinds(), [MediaKind::Local, MediaKind::LocalThumbnail]);
    let all = MediaChoice {
        thumbnails: true,
        remote: true,
        url_cache: true,
    };
    assert_eq!(all.kinds(), MediaKind::ALL);
}
