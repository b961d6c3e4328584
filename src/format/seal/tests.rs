//! Sealing against the age crate's own reader, at every edge of a chunk.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read as _;

use proptest::prelude::*;

use super::*;

const CHUNK: usize = 64 << 10;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect()
}

fn lengths() -> [usize; 9] {
    [
        0,
        1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK - 1,
        2 * CHUNK,
        2 * CHUNK + 1,
        3 * CHUNK + 7,
    ]
}

#[test]
fn what_is_sealed_opens_for_every_recipient_and_for_age_itself() {
    let (ours, safe, other) = (Identity::generate(), Identity::generate(), Identity::generate());
    for length in lengths() {
        let plain = bytes(length);
        let sealed = seal([&ours.recipient(), &safe.recipient()], &plain).unwrap();
        for identity in [&ours, &safe] {
            let identities = [other.clone(), identity.clone()];
            assert_eq!(open(&sealed, &identities).unwrap(), plain, "{length}");
            let mut by_age = Vec::new();
            let decryptor = age::Decryptor::new_buffered(&sealed[..]).unwrap();
            let mut reader = decryptor.decrypt(std::iter::once(&identity.0 as &dyn age::Identity)).unwrap();
            reader.read_to_end(&mut by_age).unwrap();
            assert_eq!(by_age, plain, "{length}");
        }
        assert_eq!(open(&sealed, std::slice::from_ref(&other)), Err(Error::NoKey));
        assert_eq!(open(&sealed, &[]), Err(Error::NoKey));
    }
}

#[test]
fn a_header_tells_how_many_and_which_of_the_keys_at_hand() {
    let keys: Vec<Identity> = (0..4).map(|_| Identity::generate()).collect();
    for count in 1..4 {
        let recipients: Vec<Recipient> = keys[..count].iter().map(Identity::recipient).collect();
        let sealed = seal(&recipients, b"content").unwrap();
        let wanted = Header {
            recipients: count,
            opened_by: (0..count).collect(),
        };
        assert_eq!(Header::read(&sealed, &keys).unwrap(), wanted);
        assert_eq!(Header::read(&sealed, &[]).unwrap().opened_by, Vec::<usize>::new());
    }
    assert!(Header::read(b"not sealed at all", &keys).is_err());
}

#[test]
fn an_object_cut_at_any_chunk_or_beside_it_is_noticed() {
    let identity = Identity::generate();
    let sealed = seal([&identity.recipient()], &bytes(3 * CHUNK)).unwrap();
    let header = usize::try_from(Opener::new(&sealed, std::slice::from_ref(&identity)).unwrap().header_bytes).unwrap();
    for chunk in 0..3 {
        for beside in [-1_i64, 0, 1, 15, 16, 17] {
            let at = i64::try_from(header + chunk * (CHUNK + 16)).unwrap() + beside;
            let cut = &sealed[..usize::try_from(at).unwrap()];
            assert!(
                matches!(open(cut, std::slice::from_ref(&identity)), Err(Error::Damaged { .. })),
                "{chunk} {beside}"
            );
        }
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert!(open(&longer, &[identity]).is_err());
}

#[test]
fn a_bit_that_is_flipped_anywhere_is_noticed() {
    let identity = Identity::generate();
    let plain = bytes(CHUNK + 100);
    let sealed = seal([&identity.recipient()], &plain).unwrap();
    for at in (0..400)
        .chain((400..sealed.len()).step_by(977))
        .chain(sealed.len() - 20..sealed.len())
    {
        let mut flipped = sealed.clone();
        flipped[at] ^= 4;
        assert!(open(&flipped, std::slice::from_ref(&identity)).is_err(), "byte {at}");
    }
}

#[test]
fn chunks_do_not_change_places() {
    let identity = Identity::generate();
    let mut sealed = seal([&identity.recipient()], &bytes(3 * CHUNK + 5)).unwrap();
    let header = usize::try_from(Opener::new(&sealed, std::slice::from_ref(&identity)).unwrap().header_bytes).unwrap();
    let (first, second) = sealed[header..].split_at_mut(CHUNK + 16);
    first.swap_with_slice(&mut second[..CHUNK + 16]);
    assert!(open(&sealed, &[identity]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_is_read_from_the_chunks_that_cover_it(length in 0_usize..4 * CHUNK + 9, start in 0.0..1.0_f64, end in 0.0..1.0_f64) {
        let identity = Identity::generate();
        let plain = bytes(length);
        let sealed = seal([&identity.recipient()], &plain).unwrap();
        let opener = Opener::new(&sealed[..sealed.len().min(4096)], &[identity]).unwrap();
        let sealed_bytes = sealed.len() as u64;
        prop_assert_eq!(opener.plain_bytes(sealed_bytes).unwrap(), length as u64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small numbers")]
        let at = |share: f64| (share * length as f64) as usize;
        let (start, end) = (at(start.min(end)), at(start.max(end)));
        let (first, (from, to)) = opener.covering((start as u64, end as u64), sealed_bytes);
        let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
        prop_assert!(range.len() <= end - start + 2 * (CHUNK + 16) + 16 * ((end - start) / CHUNK + 1));
        let opened = opener.open(first, &sealed[range], sealed_bytes).unwrap();
        let skip = start - usize::try_from(first).unwrap() * CHUNK;
        prop_assert_eq!(&opened[skip..skip + end - start], &plain[start..end]);
    }

    #[test]
    fn a_stream_pushed_in_any_pieces_is_the_same_object(pieces in prop::collection::vec(0_usize..100_000, 0..6)) {
        let identity = Identity::generate();
        let mut sealer = Sealer::new([&identity.recipient()]).unwrap();
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        for piece in pieces {
            plain.extend(bytes(piece));
            sealed.extend(sealer.push(&bytes(piece)).unwrap());
        }
        let (last, count) = sealer.finish().unwrap();
        sealed.extend(last);
        prop_assert_eq!(sealed.len() as u64, count);
        prop_assert_eq!(open(&sealed, &[identity]).unwrap(), plain);
    }
}
