"""End-to-end encryption as a server sees it: signed device keys, one-time keys, a fallback key, cross-signing, a key backup.

The keys are real (ed25519 and curve25519, signed as the specification demands, with the libraries that come with Synapse); the
ciphertexts are random, since a server cannot tell.
"""

from __future__ import annotations

import base64
import os
from typing import Any

import nacl.public
import nacl.signing
import signedjson.sign

from client import Client, Json

MEGOLM = "m.megolm.v1.aes-sha2"


def text_of(raw: bytes) -> str:
    """Unpadded base64."""
    return base64.b64encode(raw).decode().rstrip("=")


class _Signer:
    """An ed25519 key under the name of a device (or, for cross-signing, of itself)."""

    def __init__(self, user_id: str, version: str | None = None) -> None:
        self.user_id = user_id
        self.key: Any = nacl.signing.SigningKey.generate()
        self.public = text_of(bytes(self.key.verify_key))
        self.key.alg, self.key.version = "ed25519", version or self.public

    def sign(self, value: Json) -> Json:
        return signedjson.sign.sign_json(value, self.user_id, self.key)


def _curve_key() -> str:
    return text_of(bytes(nacl.public.PrivateKey.generate().public_key))


def upload_device_keys(client: Client, one_time_keys: int = 20) -> None:
    """Device keys, one-time keys and a fallback key, as a client does after its first login."""
    signer = _Signer(client.user_id, client.device_id)
    device = {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", MEGOLM],
        "keys": {f"ed25519:{client.device_id}": signer.public, f"curve25519:{client.device_id}": _curve_key()},
    }
    keys = {f"signed_curve25519:AAAA{number:04}": signer.sign({"key": _curve_key()}) for number in range(one_time_keys)}
    fallback = {"signed_curve25519:FFFF0000": signer.sign({"key": _curve_key(), "fallback": True})}
    client.post("v3/keys/upload", {"device_keys": signer.sign(device), "one_time_keys": keys, "fallback_keys": fallback})


def upload_cross_signing(client: Client) -> None:
    """Master, self-signing and user-signing key, each signed by the master."""
    master = _Signer(client.user_id)

    def key(usage: str, signer: _Signer) -> Json:
        return {"user_id": client.user_id, "usage": [usage], "keys": {f"ed25519:{signer.public}": signer.public}}

    body = {"master_key": key("master", master)}
    for usage in ("self_signing", "user_signing"):
        body[f"{usage}_key"] = master.sign(key(usage, _Signer(client.user_id)))
    client.post("v3/keys/device_signing/upload", body)


def upload_key_backup(client: Client, rooms: list[str], sessions: int = 3) -> str:
    """A version of the server-side key backup with some sessions in it; returns the version."""
    signer = _Signer(client.user_id, client.device_id)
    data = signer.sign({"public_key": _curve_key()})
    version = client.post("v3/room_keys/version", {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": data})["version"]
    kept = {room: {"sessions": {text_of(os.urandom(32)): _session() for _ in range(sessions)}} for room in rooms}
    client.put(f"v3/room_keys/keys?version={version}", {"rooms": kept})
    return version


def _session() -> Json:
    data = {"ephemeral": _curve_key(), "ciphertext": text_of(os.urandom(400)), "mac": text_of(os.urandom(8))}
    return {"first_message_index": 0, "forwarded_count": 0, "is_verified": True, "session_data": data}


def encrypted(client: Client, bytes_count: int = 300) -> Json:
    """The content of an encrypted message."""
    return {
        "algorithm": MEGOLM,
        "sender_key": _curve_key(),
        "device_id": client.device_id,
        "session_id": text_of(os.urandom(32)),
        "ciphertext": text_of(os.urandom(bytes_count)),
    }


def one_time_keys_left(client: Client) -> int:
    """How many one-time keys the server holds for this device."""
    counts = client.post("v3/keys/upload", {})["one_time_key_counts"]
    return sum(counts.values())
