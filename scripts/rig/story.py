"""What happens on the homeserver, and what can be seen of it: the same questions before the loss and after the restore.

A `Story` fills a fresh Synapse with people, rooms, encrypted devices and media, can go on for another day, and can be observed through
the client API alone. Two observations of the same state are equal; `differences` names what is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import struct
import time
import zlib
from typing import Any

import e2ee
from client import Client, Json, login, part, register
from homeserver import Installation

PEOPLE = ("alice", "bob", "carol", "dora")
NAMES = {"alice": "Alice", "bob": "Bob ☂", "carol": "Кэрол 'the \"quote\"", "dora": "多拉"}
MIB = 1024 * 1024


@dataclasses.dataclass
class Story:
    """The people of a homeserver and what they have done so far."""

    installation: Installation
    seed: int = 1
    clients: dict[str, Client] = dataclasses.field(default_factory=dict)
    rooms: dict[str, str] = dataclasses.field(default_factory=dict)
    media: dict[str, str] = dataclasses.field(default_factory=dict)  # media id -> SHA-256
    pictures: list[str] = dataclasses.field(default_factory=list)
    backups: dict[str, str] = dataclasses.field(default_factory=dict)  # user -> version of the key backup

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def begin(self, messages: int = 120, files: int = 40) -> None:
        """The first day: people, devices, rooms, messages, keys, media."""
        for name in PEOPLE:
            self._arrive(name)
        self._open_rooms()
        for name in ("alice", "bob"):
            self.backups[name] = e2ee.upload_key_backup(self.clients[name], [self.rooms["secret"], self.rooms["direct"]])
        self.talk(messages)
        self.share(files)
        self._odd_files()

    def another_day(self, messages: int = 40, files: int = 12) -> None:
        """More of the same."""
        self.talk(messages)
        self.share(files)

    def _arrive(self, name: str) -> None:
        url, secret = self.installation.url, self.installation.registration_secret
        register(url, secret, name, f"pass of {name}", admin=name == "alice")
        client = self.clients[name] = login(url, name, f"pass of {name}", f"{name.upper()}PHONE")
        client.put(f"v3/profile/{part(client.user_id)}/displayname", {"displayname": NAMES[name]})
        client.put(f"v3/user/{part(client.user_id)}/account_data/org.example.rig", {"likes": ["tea", NAMES[name]], "n\n": 1})
        e2ee.upload_device_keys(client)
        e2ee.upload_cross_signing(client)

    def _open_rooms(self) -> None:
        alice = self.clients["alice"]
        encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": e2ee.MEGOLM}}
        wanted: dict[str, Json] = {
            "square": {"preset": "public_chat", "name": "The square 🏙", "topic": "Everything\nand 'more'", "room_alias_name": "square"},
            "secret": {"preset": "private_chat", "name": "Secret", "initial_state": [encryption]},
            "direct": {"preset": "trusted_private_chat", "is_direct": True, "initial_state": [encryption]},
        }
        for name, body in wanted.items():
            guests = PEOPLE[1:2] if name == "direct" else PEOPLE[1:]
            body["invite"] = [self.clients[guest].user_id for guest in guests]
            self.rooms[name] = alice.post("v3/createRoom", body)["room_id"]
            for guest in guests:
                self.clients[guest].post(f"v3/join/{part(self.rooms[name])}", {})

    def talk(self, count: int) -> None:
        """Messages, reactions, edits, redactions, receipts, and messages from device to device."""
        for number in range(count):
            room = self.random.choice(list(self.rooms))
            people = PEOPLE[:2] if room == "direct" else PEOPLE
            client = self.clients[self.random.choice(people)]
            if room != "square":
                client.send(self.rooms[room], "m.room.encrypted", e2ee.encrypted(client, self.random.randrange(80, 900)))
                continue
            words = " ".join(self.random.choice(WORDS) for _ in range(self.random.randrange(3, 40)))
            event = client.send(self.rooms[room], "m.room.message", {"msgtype": "m.text", "body": f"{number}: {words}"})
            if number % 7 == 0:
                relation = {"rel_type": "m.annotation", "event_id": event, "key": "👍"}
                self.clients["bob"].send(self.rooms[room], "m.reaction", {"m.relates_to": relation})
            if number % 11 == 0:
                client.put(f"v3/rooms/{part(self.rooms[room])}/redact/{part(event)}/r{event[1:9]}", {"reason": "slip"})
            if number % 5 == 0:
                self.clients["carol"].post(f"v3/rooms/{part(self.rooms[room])}/receipt/m.read/{part(event)}", {})
        alice, bob = self.clients["alice"], self.clients["bob"]
        message = {"messages": {bob.user_id: {bob.device_id: {"hello": count}}}}
        alice.put(f"v3/sendToDevice/org.example.rig/{time.monotonic_ns()}", message)

    def share(self, count: int) -> None:
        """Uploads media of several kinds and sizes."""
        for number in range(count):
            client = self.clients[self.random.choice(PEOPLE)]
            if number % 4 == 0:
                side = self.random.randrange(120, 900)
                self._upload(client, picture(side, side * 3 // 4, self.random), "image/png", f"picture {number} ü.png", picture_too=True)
            elif number % 4 == 1:
                text = "\n".join(self.random.choice(WORDS) for _ in range(self.random.randrange(10, 4000)))
                self._upload(client, text.encode(), "text/plain", f"notes-{number}.txt")
            else:
                self._upload(client, self.random.randbytes(self.random.randrange(1000, 400_000)), "application/octet-stream", f"file {number}")

    def _odd_files(self) -> None:
        # Around the limit of one blob, and one that is several.
        for size in (1, 8 * MIB, 8 * MIB + 1, 21 * MIB):
            self._upload(self.clients["bob"], self.random.randbytes(size), "application/octet-stream", f"{size} bytes")
        again = b"the same bytes twice\n" * 1000
        for name in ("once.txt", "twice.txt"):
            self._upload(self.clients["dora"], again, "text/plain", name)

    def _upload(self, client: Client, body: bytes, kind: str, name: str, picture_too: bool = False) -> None:
        media_id = client.upload(body, kind, name)
        self.media[media_id] = hashlib.sha256(body).hexdigest()
        if picture_too:
            self.pictures.append(media_id)
        content = {"msgtype": "m.file", "body": name, "url": f"mxc://{self.installation.server_name}/{media_id}"}
        client.send(self.rooms["square"], "m.room.message", content)

    def observe(self) -> Json:
        """Everything the client API tells, without what may change by looking."""
        seen: Json = {"media": {}, "thumbnails": {}, "rooms": {}, "people": {}}
        keys = Client(self.installation.url).call("GET", "/_matrix/key/v2/server")
        seen["verify keys"] = keys["verify_keys"]
        alice, server = self.clients["alice"], self.installation.server_name
        for media_id in self.media:
            status, body = alice.download(server, media_id)
            seen["media"][media_id] = hashlib.sha256(body).hexdigest() if status == 200 else f"status {status}"
        for media_id in self.pictures:
            status, body = alice.thumbnail(server, media_id, 96, 96)
            seen["thumbnails"][media_id] = [status, body[:8] in (b"\x89PNG\r\n\x1a\n",) or body[:2] == b"\xff\xd8"]
        for name, room in self.rooms.items():
            state = sorted(alice.get_list(f"v3/rooms/{part(room)}/state"), key=lambda event: (event["type"], event["state_key"]))
            seen["rooms"][name] = {"messages": [_stable(event) for event in alice.messages(room)], "state": [_stable(e) for e in state]}
        everybody = {client.user_id: [] for client in self.clients.values()}
        for name, client in self.clients.items():
            seen["people"][name] = self._observe_person(name, client, everybody)
        return seen

    def _observe_person(self, name: str, client: Client, everybody: Json) -> Json:
        devices = client.get("v3/devices")["devices"]
        person: Json = {
            "who": client.get("v3/account/whoami"),
            "profile": client.get(f"v3/profile/{part(client.user_id)}"),
            "account data": client.get(f"v3/user/{part(client.user_id)}/account_data/org.example.rig"),
            "rooms": sorted(client.get("v3/joined_rooms")["joined_rooms"]),
            "devices": sorted(device["device_id"] for device in devices),
            "keys": client.post("v3/keys/query", {"device_keys": everybody}),
        }
        if name in self.backups:
            person["backup"] = client.get("v3/room_keys/version")
            person["backed up keys"] = client.get(f"v3/room_keys/keys?version={self.backups[name]}")
        return person

    def one_time_keys(self) -> dict[str, int]:
        """How many one-time keys the server holds, per person."""
        return {name: e2ee.one_time_keys_left(client) for name, client in self.clients.items()}

    def counts(self, seen: Json) -> str:
        """An observation in one line."""
        messages = sum(len(room["messages"]) for room in seen["rooms"].values())
        keys = sum(len(kept["sessions"]) for person in seen["people"].values() for kept in person.get("backed up keys", {"rooms": {}})["rooms"].values())
        return f"{len(self.clients)} users, {len(self.rooms)} rooms, {messages} events, {len(seen['media'])} media, {keys} backed-up room keys"


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two observations differ, as readable lines."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return [line for key in sorted({*before, *after}, key=str) for line in differences(before.get(key), after.get(key), f"{path}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [line for number, pair in enumerate(zip(before, after)) for line in differences(*pair, f"{path}/{number}")]
    return [f"{path}: {str(before)[:120]} became {str(after)[:120]}"]


def _stable(event: Json) -> Json:
    """An event without what the server adds depending on what it remembers."""
    return {key: event.get(key) for key in ("event_id", "type", "state_key", "sender", "origin_server_ts", "content", "redacts")}


def picture(width: int, height: int, source: random.Random) -> bytes:
    """A PNG with a gradient and some noise, so that it neither shrinks to nothing nor is random throughout."""
    tint, rows = source.randrange(256), bytearray()
    for y in range(height):
        rows.append(0)
        noise = source.randbytes(width)
        for x in range(width):
            rows += bytes(((x + tint) & 255, (y + tint) & 255, noise[x] & 31))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows), 1)) + chunk(b"IEND", b"")


WORDS = (
    "the quick brown fox jumps over a lazy dog while rain falls on Überlingen and 東京 and nobody asks why 🌧 since tea is ready "
    "at four o'clock \"or so\" said the conductor \\ train / platform nine ¾ with luggage, umbrellas; newspapers & old letters"
).split(" ")
