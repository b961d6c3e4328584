//! The two texts of libpq: `key = 'value'` words, and `postgres://` URLs (PostgreSQL documentation, "Connection Strings").
//!
//! They are read here only so that the password can be taken out before anything reaches argv; what the keywords mean
//! is left to libpq. No error of this file repeats a value, since a broken text may hold a password anywhere.

use std::collections::BTreeMap;

use super::{Error, KEYWORDS, UNPASSABLE};

type Keywords = BTreeMap<String, String>;

fn wrong(reason: impl Into<String>) -> Error {
    Error::ConnInfo { reason: reason.into() }
}

/// A URL or `key=value` words; a text with neither is a database name, as `psql` and `pg_dump` take it.
pub(super) fn any(text: &str) -> Result<Keywords, Error> {
    let text = text.trim();
    if let Some(rest) = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
        url(rest)
    } else if text.contains('=') {
        words(text)
    } else if text.contains("://") {
        Err(wrong("only postgres:// and postgresql:// URLs are known"))
    } else if text.is_empty() {
        Ok(Keywords::new())
    } else {
        Ok([("dbname".to_owned(), text.to_owned())].into())
    }
}

/// `host=localhost password = 'it\'s'`
fn words(text: &str) -> Result<Keywords, Error> {
    let mut keywords = Keywords::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| wrong("a word without `=` stands at the end"))?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong("each keyword needs a `=` and a value; values with spaces need single quotes"));
        }
        let (value, after) = value(after.trim_start(), key)?;
        keywords.insert(key.to_owned(), value);
        rest = after.trim_start();
    }
    // A password with a space and a `=` in it, not quoted, leaves its second half as a keyword: not to be repeated.
    let is_known = |key: &String| key == "password" || KEYWORDS.contains(&key.as_str()) || UNPASSABLE.contains(&key.as_str());
    if keywords.contains_key("password") && !keywords.keys().all(is_known) {
        return Err(wrong(
            "beside the password stands a keyword that libpq does not know; values with spaces need single quotes",
        ));
    }
    Ok(keywords)
}

/// A value at the front of `text`, quoted or not, and what stands behind it.
fn value<'a>(text: &'a str, key: &str) -> Result<(String, &'a str), Error> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None if quoted => break,
                None => return Ok((value, "")),
            },
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            character if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            character => value.push(character),
        }
    }
    if quoted {
        Err(wrong(format!("the quoted value of `{key}` has no end")))
    } else {
        Ok((value, ""))
    }
}

/// `[user[:password]@][host[:port][,…]][/dbname][?key=value&…]`, the scheme taken off.
fn url(rest: &str) -> Result<Keywords, Error> {
    let mut keywords = Keywords::new();
    // The login first, as libpq does it: a password may hold a `?`, and must not be taken for a host or a keyword.
    let (login, rest) = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => (Some(&rest[..at]), &rest[at + 1..]),
        _ => (None, rest),
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (hosts, database) = rest
        .split_once('/')
        .map_or((rest, None), |(hosts, database)| (hosts, Some(database)));
    if let Some(login) = login {
        let (user, password) = login
            .split_once(':')
            .map_or((login, None), |(user, password)| (user, Some(password)));
        insert(&mut keywords, "user", user)?;
        insert(&mut keywords, "password", password.unwrap_or_default())?;
    }
    let (hosts, ports) = split_hosts(hosts)?;
    insert(&mut keywords, "host", &hosts)?;
    insert(&mut keywords, "port", &ports)?;
    insert(&mut keywords, "dbname", database.unwrap_or_default())?;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong("a word without `=` stands in the query of the URL"))?;
        let (key, value) = (decode(key)?, decode(value)?);
        // JDBC's spelling, which libpq takes as well.
        let (key, value) = if key == "ssl" && value == "true" {
            ("sslmode".into(), "require".into())
        } else {
            (key, value)
        };
        keywords.insert(key, value);
    }
    Ok(keywords)
}

/// `h1:1,[::1]:2` gives `h1,::1` and `1,2`; an empty port list when no port is named at all.
fn split_hosts(text: &str) -> Result<(String, String), Error> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for one in text.split(',') {
        let (host, port) = if let Some(inner) = one.strip_prefix('[') {
            let (host, after) = inner
                .split_once(']')
                .ok_or_else(|| wrong("an IPv6 address in the URL has no `]`"))?;
            if !after.is_empty() && !after.starts_with(':') {
                return Err(wrong("only `:` and a port may stand behind the `]` of an address"));
            }
            (host, after.strip_prefix(':').unwrap_or_default())
        } else {
            one.split_once(':').unwrap_or((one, ""))
        };
        hosts.push(host);
        ports.push(port);
    }
    let ports = if ports.iter().all(|port| port.is_empty()) {
        String::new()
    } else {
        ports.join(",")
    };
    let hosts = if hosts.iter().all(|host| host.is_empty()) {
        String::new()
    } else {
        hosts.join(",")
    };
    Ok((hosts, ports))
}

fn insert(keywords: &mut Keywords, key: &str, encoded: &str) -> Result<(), Error> {
    if !encoded.is_empty() {
        keywords.insert(key.to_owned(), decode(encoded)?);
    }
    Ok(())
}

/// Percent-decoding; `+` stays, as in libpq.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = after
            .get(..2)
            .and_then(|two| std::str::from_utf8(two).ok())
            .filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let decoded = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(
            decoded.ok_or_else(|| wrong("a `%` in the URL must be followed by two hexadecimal digits (write `%25` for `%` itself)"))?,
        );
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong("the URL is not UTF-8 once decoded"))
}
