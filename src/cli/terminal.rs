//! Asking a person: a passphrase without showing it, a yes with. On `/dev/tty`, so that pipes stay what they are.
//!
//! Only where somebody sits: standard input or standard error is a terminal. Keys are read one by one, also Ctrl-C, since the
//! program's own handling of signals waits until the answer is there; whatever happens, the terminal is left as it was.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::ops::Error;

/// Where the one who sits there reads and writes.
const TERMINAL: &str = "/dev/tty";
/// A line of a person. Room for all of it is taken at once, so that no copy of a secret stays behind.
const LINE_BYTES_MAX: usize = 4096;

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;

/// A line that is not shown while it is typed; `None`: nobody sits there.
pub(super) fn ask_secret(question: &str) -> Result<Option<Zeroizing<String>>, Error> {
    ask_with(question, false)
}

/// A line that is shown.
pub(super) fn ask(question: &str) -> Result<Option<Zeroizing<String>>, Error> {
    ask_with(question, true)
}

fn ask_with(question: &str, shown: bool) -> Result<Option<Zeroizing<String>>, Error> {
    if !std::io::stdin().is_terminal() && !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let Ok(tty) = OpenOptions::new().read(true).write(true).open(TERMINAL) else {
        return Ok(None);
    };
    let Ok(mut tty) = Raw::new(tty) else { return Ok(None) };
    let failed = |error: std::io::Error| Error::usage(format!("{TERMINAL}: {error}"), "answer on a terminal that can be read");
    tty.file.write_all(question.as_bytes()).map_err(failed)?;
    let line = tty.line(shown).map_err(failed)?;
    tty.file.write_all(b"\r\n").map_err(failed)?;
    line.map(Some).ok_or_else(Error::interrupted)
}

/// A terminal that gives every key as it is pressed and shows none, until this is dropped.
struct Raw {
    file: File,
    before: Termios,
}

impl Raw {
    fn new(file: File) -> std::io::Result<Self> {
        let before = tcgetattr(&file)?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&file, OptionalActions::Flush, &raw)?;
        Ok(Self { file, before })
    }

    /// Up to Enter; `None`: Ctrl-C, or nothing more comes.
    fn line(&mut self, shown: bool) -> std::io::Result<Option<Zeroizing<String>>> {
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
        let mut key = Zeroizing::new([0]);
        loop {
            if self.file.read(&mut *key)? == 0 {
                return Ok(None);
            }
            match key[0] {
                b'\r' | b'\n' => break,
                CTRL_C | CTRL_D => return Ok(None),
                CTRL_U => line.clear(),
                BACKSPACE | DELETE => {
                    // A letter may be several bytes, of which all but the first begin with 10.
                    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
                    if shown {
                        self.file.write_all(b"\x08 \x08")?;
                    }
                }
                byte if line.len() < LINE_BYTES_MAX => {
                    line.push(byte);
                    if shown {
                        self.file.write_all(&*key)?;
                    }
                }
                _ => {}
            }
        }
        let text = std::str::from_utf8(&line).map_err(|_| std::io::Error::other("what was typed is not UTF-8"))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}
