//! Signing keys: from the file that Synapse reads to the public keys that other servers know.
//!
//! The format is signedjson's: a line `ed25519 <version> <seed in unpadded base64>` each, and Synapse passes over blank
//! lines (`synapse/config/key.py`, `read_signing_keys`). Very old files hold the seed alone. Only the public half leaves
//! this file; errors name the line, never what stands in it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use ed25519_dalek::SigningKey as Ed25519;
use zeroize::Zeroizing;

/// Bytes of a signing key file. A key takes 60.
pub const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// The public half of a key that the homeserver signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// `ed25519:a_ABCD`; only `ed25519` for the oldest format, to which Synapse gives a random version when it starts.
    pub key_id: String,
    /// In unpadded base64, 43 characters, as in `verify_keys` of `/_matrix/key/v2/server`.
    pub public_key: String,
    /// Where the private half stands; none if it is `signing_key` in the configuration.
    pub path: Option<PathBuf>,
}

/// A signing key file that Synapse could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing but blank lines.
    #[error("there is no key in it")]
    Empty,
    /// Neither three words nor, alone on the first line, one.
    #[error("line {0} is not `ed25519 <version> <key>`")]
    Shape(usize),
    /// A first word that is not `ed25519`.
    #[error("line {0} is for another algorithm than ed25519")]
    Algorithm(usize),
    /// A last word that is not 32 bytes in base64.
    #[error("the key in line {0} is not 32 bytes in base64")]
    Seed(usize),
    /// Not a text at all.
    #[error("it is not a text")]
    NotText,
}

/// All keys in the bytes of a signing key file, the one that signs first.
pub fn parse(bytes: &[u8], path: Option<&Path>) -> Result<Vec<SigningKey>, KeyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyError::NotText)?;
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (key_id, seed) = match words.as_slice() {
            [] => continue,
            ["ed25519", version, seed] => (format!("ed25519:{version}"), seed),
            [_, _, _] => return Err(KeyError::Algorithm(number)),
            [seed] if number == 1 => ("ed25519".to_owned(), seed),
            _ => return Err(KeyError::Shape(number)),
        };
        let public_key = public_key(seed).ok_or(KeyError::Seed(number))?;
        keys.push(SigningKey {
            key_id,
            public_key,
            path: path.map(Path::to_path_buf),
        });
    }
    if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
}

fn public_key(seed: &str) -> Option<String> {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true)
        .with_encode_padding(false);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    // Both alphabets of base64 are accepted, as unpaddedbase64 does.
    let text = Zeroizing::new(seed.replace('-', "+").replace('_', "/"));
    let decoded = Zeroizing::new(engine.decode(text.as_bytes()).ok()?);
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(decoded.as_slice().try_into().ok()?);
    Some(engine.encode(Ed25519::from_bytes(&seed).verifying_key().as_bytes()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    /// By `PyNaCl`, through signedjson.
    const PUBLIC: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";

    #[test]
    fn every_form_of_key_file_that_synapse_reads_gives_its_public_keys() {
        let cases = [
            (format!("ed25519 a_ABCD {SEED}\n"), vec!["ed25519:a_ABCD"]),
            (
                format!("\n  ed25519\t0   {SEED}=  \r\n\ned25519 b {SEED}"),
                vec!["ed25519:0", "ed25519:b"],
            ),
            (format!("{SEED}\n"), vec!["ed25519"]),
        ];
        for (text, ids) in cases {
            let keys = parse(text.as_bytes(), None).unwrap();
            assert_eq!(keys.iter().map(|key| key.key_id.as_str()).collect::<Vec<_>>(), ids);
            assert!(keys.iter().all(|key| key.public_key == PUBLIC));
        }
    }

    #[test]
    fn a_wrong_file_is_named_by_its_line() {
        let cases = [
            (String::new(), KeyError::Empty),
            (" \n\n".into(), KeyError::Empty),
            (format!("rsa a {SEED}"), KeyError::Algorithm(1)),
            (format!("ed25519 a {SEED}\ned25519 b"), KeyError::Shape(2)),
            (format!("ed25519 a {SEED}\n{SEED}"), KeyError::Shape(2)),
            ("ed25519 a AAAA".into(), KeyError::Seed(1)),
            ("\ned25519 a hunter2!".into(), KeyError::Seed(2)),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text.as_bytes(), None).unwrap_err(), error, "{text}");
        }
        assert_eq!(parse(b"\xff", None).unwrap_err(), KeyError::NotText);
    }
}
