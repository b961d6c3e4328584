//! Is a path one that Synapse would make? The shape of each folder, and the characters of each segment.
//!
//! A path that passes can be joined to the media store: no segment is empty, `.` or `..`, none has a `/` or a control
//! character of its own. The characters are those of Synapse's `filepath.py` (`ALLOWED_CHARACTERS`), and `=`, `+` and `~`
//! for ids of bridges and subtypes of thumbnails.

use super::MediaKind;

/// The longest name that file systems take; Synapse could not have written a longer one.
const SEGMENT_BYTES_MAX: usize = 255;

pub(super) fn is_safe(kind: MediaKind, path: &str) -> bool {
    let mut segments = path.split('/');
    if segments.next() != Some(kind.folder()) {
        return false;
    }
    let segments: Vec<&str> = segments.collect();
    if !segments.iter().all(|segment| is_segment(segment)) {
        return false;
    }
    match (kind, &segments[..]) {
        (MediaKind::Local, id)
        | (MediaKind::LocalThumbnail, [id @ .., _])
        | (MediaKind::Remote, [_, id @ ..])
        | (MediaKind::RemoteThumbnail, [_, id @ .., _]) => is_nested(id),
        (MediaKind::UrlCache, id) | (MediaKind::UrlCacheThumbnail, [id @ .., _]) => is_dated(id) || is_nested(id),
        _ => false,
    }
}

/// The id that the file is named by (`media_id`, `filesystem_id`), from its path; `None` for a path that is not safe.
/// The dated ids of the URL cache have one character between date and rest that the path does not tell: `_`, as Synapse
/// makes them.
pub(super) fn file_id(kind: MediaKind, path: &str) -> Option<String> {
    if !is_safe(kind, path) {
        return None;
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let id = match kind {
        MediaKind::Local | MediaKind::UrlCache => &segments[..],
        MediaKind::LocalThumbnail | MediaKind::UrlCacheThumbnail => &segments[..segments.len() - 1],
        MediaKind::Remote => &segments[1..],
        MediaKind::RemoteThumbnail => &segments[1..segments.len() - 1],
    };
    Some(if is_nested(id) { id.concat() } else { id.join("_") })
}

fn is_nested(segments: &[&str]) -> bool {
    matches!(segments, [first, second, _] if first.len() == 2 && second.len() == 2)
}

fn is_dated(segments: &[&str]) -> bool {
    matches!(segments, [date, _] if date.len() == 10 && date.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() }))
}

fn is_segment(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]:=+~".contains(&byte);
    !segment.is_empty() && segment != "." && segment != ".." && segment.len() <= SEGMENT_BYTES_MAX && segment.bytes().all(allowed)
}
