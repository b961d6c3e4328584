//! Where the main process of Synapse answers HTTP, as `listeners` says.
//!
//! As `parse_listener_def` in `synapse/config/server.py`. Only to tell an administrator which address to ask: what is odd is
//! passed over.

use std::path::PathBuf;

use crate::synapse::yaml::{Kind, Mapping, Value};
use crate::synapse::{Listener, ListenerPlace};

/// The first listener that gives the server's keys, else the first that speaks HTTP.
pub(super) fn main(map: &Mapping) -> Option<Listener> {
    let listeners = map.get("listeners").and_then(Value::as_list).unwrap_or_default();
    let all: Vec<Listener> = listeners.iter().filter_map(listener).collect();
    all.iter().find(|listener| listener.has_keys).or(all.first()).cloned()
}

fn listener(value: &Value) -> Option<Listener> {
    let map = value.as_map()?;
    if map.get("type").and_then(Value::as_text) != Some("http") {
        return None;
    }
    let place = match (map.get("port").map(|port| &port.kind), map.get("path").and_then(Value::as_text)) {
        (Some(Kind::Int(port)), _) => ListenerPlace::Port {
            host: host(map),
            port: u16::try_from(port.as_i64()?).ok()?,
        },
        (_, Some(path)) => ListenerPlace::Socket(PathBuf::from(path)),
        _ => return None,
    };
    let resources = map.get("resources").and_then(Value::as_list).unwrap_or_default();
    let names = resources
        .iter()
        .filter_map(|resource| resource.as_map()?.get("names")?.as_list())
        .flatten();
    Some(Listener {
        place,
        tls: map.get("tls").is_some_and(Value::is_true),
        // `federation` brings the keys along.
        has_keys: names.filter_map(Value::as_text).any(|name| matches!(name, "keys" | "federation")),
    })
}

/// An address that this machine can ask: loopback if it listens there.
fn host(map: &Mapping) -> String {
    let several = map.get("bind_addresses").and_then(Value::as_list).unwrap_or_default();
    let addresses: Vec<&str> = several.iter().chain(map.get("bind_address")).filter_map(Value::as_text).collect();
    if addresses.is_empty() || addresses.iter().any(|address| matches!(*address, "" | "::" | "0.0.0.0")) {
        return "localhost".to_owned();
    }
    let loopback = addresses.iter().find(|address| matches!(**address, "127.0.0.1" | "localhost"));
    let chosen = loopback.or(addresses.first()).copied().unwrap_or("localhost");
    if chosen.contains(':') {
        format!("[{chosen}]")
    } else {
        chosen.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::synapse::yaml;

    #[test]
    fn the_listener_that_gives_the_keys_is_the_one_to_ask() {
        let at = |host: &str, port: u16| ListenerPlace::Port { host: host.into(), port };
        let cases = [
            (
                "[{port: 9000, type: metrics}, {port: 8008, type: http, bind_addresses: ['::1', '127.0.0.1'], \
                 resources: [{names: [client, federation]}]}]",
                Some((at("127.0.0.1", 8008), false, true)),
            ),
            (
                "[{port: 8009, type: http, resources: [{names: [client]}]}, \
                 {port: 8448, type: http, tls: yes, bind_addresses: ['::'], resources: [{names: [health]}, {names: [keys]}]}]",
                Some((at("localhost", 8448), true, true)),
            ),
            (
                "[{port: 8009, type: http, bind_address: 10.0.0.5}]",
                Some((at("10.0.0.5", 8009), false, false)),
            ),
            (
                "[{port: 8009, type: http, bind_addresses: ['::1']}]",
                Some((at("[::1]", 8009), false, false)),
            ),
            (
                "[{path: /run/main.sock, type: http, resources: [{names: [keys]}]}]",
                Some((ListenerPlace::Socket("/run/main.sock".into()), false, true)),
            ),
            ("[{port: nine, type: http}, {port: 70000, type: http}, 7]", None),
            ("{}", None),
        ];
        for (text, expected) in cases {
            let value = yaml::parse(format!("listeners: {text}").as_bytes()).unwrap();
            let found = main(value.as_map().unwrap());
            let found = found.map(|listener| (listener.place, listener.tls, listener.has_keys));
            assert_eq!(found, expected, "{text}");
        }
    }
}
