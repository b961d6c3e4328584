"""A grown homeserver in a minute: rows and files as years of use leave them, written past Synapse.

The schema is Synapse's own (it has been started once); events, state and media rows are made by SQL, media files here. Sizes are
shared out as on real servers: state_groups_state is the largest table, then event_json, then events. The texts compress about as chat
does; ids, hashes and signatures do not compress at all; media are random behind a JPEG header, of log-normal size.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
import random

from ground import RigError
from homeserver import Installation
from postgres import Postgres

MIB = 1024 * 1024
EVENTS_PER_MIB = 310  # of the database, with the state rows below and all indexes
STATE_ROWS_PER_EVENT = 7
MEDIAN_BYTES, SIGMA, LARGEST_BYTES = 120_000, 1.5, 50 * MIB
THUMBNAILS = ((32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"))

HELPERS = """
CREATE OR REPLACE FUNCTION pg_temp.word64(seed text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT translate(rtrim(encode(sha256(seed::bytea), 'base64'), '='), '+/', '-_') $$;
CREATE OR REPLACE FUNCTION pg_temp.chat(seed bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT string_agg(substr(text, 1 + get_byte(h, i) * 3 + get_byte(h, i + 1) % 3, 3 + get_byte(h, i + 2) % 13), ' ')
   FROM (SELECT sha256(seed::text::bytea) AS h,
   'the meeting moved to four because the train from the coast was late again and nobody had the keys; could you bring the blue folder, '
   'the one with the maps? I think Anna has seen it last week near the window - or was it Tuesday. thanks a lot! see you there, and do not '
   'forget the cake this time :) was machst du heute abend? ich komme etwas spaeter, gruess alle. je ne sais pas encore, peut-etre demain '
   'matin si la pluie le permet. here is the link we talked about, tell me what you think of it; my phone died yesterday, sorry, I read this '
   'only now. who takes the dog? not me, I was there on Sunday & Monday. ok ok, then me. good night all, sleep well, until tomorrow at nine '
   'in front of the station. does anybody know a plumber who answers the phone? no. yes: two streets away, but expensive' AS text) AS t,
   generate_series(0, 2 + (seed % 27)::int) AS i $$;
"""

# Event number n of the series; %(first)s and %(last)s are filled in below.
EVENTS = """
INSERT INTO event_json (event_id, room_id, internal_metadata, json, format_version)
SELECT '$' || pg_temp.word64('e' || n), '!room' || n %% 97 || ':rig.example',
  format('{"token_id":%%s,"historical":false}', n %% 50),
  format('{"auth_events":["$%%s","$%%s","$%%s"],"prev_events":["$%%s"],"type":"m.room.message","room_id":"!room%%s:rig.example","sender":"@user%%s:rig.example",'
    '"content":{"body":"%%s","msgtype":"m.text"},"depth":%%s,"hashes":{"sha256":"%%s"},"origin":"rig.example","origin_server_ts":%%s,'
    '"signatures":{"rig.example":{"ed25519:a_RigX":"%%s%%s"}},"unsigned":{"age_ts":%%s}}',
    pg_temp.word64('a' || n %% 97), pg_temp.word64('b' || n %% 97), pg_temp.word64('c' || n %% 331), pg_temp.word64('e' || n - 97),
    n %% 97, n %% 331, pg_temp.chat(n), n / 97 + 1, pg_temp.word64('h' || n), 1600000000000 + n * 1713,
    pg_temp.word64('s' || n), pg_temp.word64('t' || n), 1600000000000 + n * 1713), 3
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n;
INSERT INTO events (stream_ordering, topological_ordering, event_id, type, room_id, processed, outlier, depth, origin_server_ts, received_ts, sender, contains_url, instance_name)
SELECT n + 1000000, n / 97 + 1, '$' || pg_temp.word64('e' || n), 'm.room.message', '!room' || n %% 97 || ':rig.example', true, false, n / 97 + 1,
  1600000000000 + n * 1713, 1600000000000 + n * 1713 + 40, '@user' || n %% 331 || ':rig.example', n %% 40 = 0, 'master'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n;
INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)
SELECT 1000000 + n / 40, '!room' || n / 40 %% 97 || ':rig.example', 'm.room.member', '@user' || n %% 331 || ':rig.example', '$' || pg_temp.word64('m' || n / 2)
FROM generate_series(%(first)s::bigint * %(state)s, (%(last)s::bigint + 1) * %(state)s - 1) AS n;
"""

# What a day does besides new rows: updates scattered over the past.
SCATTERED = "UPDATE event_json SET internal_metadata = replace(internal_metadata, 'false', 'true') WHERE hashtext(event_id) %% 1000 = %(day)s;\n"


class Generator:
    """Fills an installation (Synapse stopped) and lets days pass."""

    def __init__(self, postgres: Postgres, installation: Installation, seed: int = 7) -> None:
        self.postgres, self.installation = postgres, installation
        self.random = random.Random(seed)
        self.events = self.days = self.files = 0

    def database(self, mib: int) -> None:
        """The first years: about so many MiB on the disk of PostgreSQL."""
        self._events(mib * EVENTS_PER_MIB)
        self._sql("VACUUM ANALYZE;")

    def media(self, mib: int) -> None:
        """Files and rows of about so many MiB."""
        rows: list[str] = []
        thumbnails: list[str] = []
        left = mib * MIB
        while left > 0:
            count = min(LARGEST_BYTES, left, max(300, int(self.random.lognormvariate(math.log(MEDIAN_BYTES), SIGMA))))
            left -= count + self._file(count, rows, thumbnails)
        self._copy("local_media_repository (media_id, media_type, media_length, created_ts, upload_name, user_id, sha256, authenticated)", rows)
        if thumbnails:
            columns = "media_id, thumbnail_width, thumbnail_height, thumbnail_type, thumbnail_method, thumbnail_length"
            self._copy(f"local_media_repository_thumbnails ({columns})", thumbnails)

    def another_day(self, share: float = 0.01, media_mib: int = 8) -> None:
        """New rows (a share of what is there), a thousandth of the events updated, some media."""
        self.days += 1
        self._events(max(1, int(self.events * share)))
        self._sql(SCATTERED % {"day": self.days})
        if media_mib:
            self.media(media_mib)

    def _events(self, count: int) -> None:
        first, last = self.events, self.events + count - 1
        self._sql(HELPERS + EVENTS % {"first": first, "last": last, "state": STATE_ROWS_PER_EVENT})
        self.events += count

    def _sql(self, statements: str) -> None:
        self.postgres.sql(statements, self.installation.database)

    def _file(self, count: int, rows: list[str], thumbnails: list[str]) -> int:
        media_id = "".join(self.random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", k=24))
        body = jpeg_like(count, self.random)
        self._write("local_content", media_id, None, body)
        self.files += 1
        digest = hashlib.sha256(body).hexdigest()
        user = f"@user{self.random.randrange(331)}:rig.example"
        rows.append(f"{media_id}\timage/jpeg\t{count}\t{1_600_000_000_000 + self.files}\tIMG_{self.files}.jpg\t{user}\t{digest}\tt")
        small = 0
        for width, height, method in THUMBNAILS if self.files % 5 < 3 else ():
            size = min(count, width * height // 4 + self.random.randrange(800, 2000))
            self._write("local_thumbnails", media_id, f"{width}-{height}-image-jpeg-{method}", jpeg_like(size, self.random))
            thumbnails.append(f"{media_id}\t{width}\t{height}\timage/jpeg\t{method}\t{size}")
            small += size
        return small

    def _write(self, kind: str, media_id: str, name: str | None, body: bytes) -> None:
        path: pathlib.Path = self.installation.media_store / kind / media_id[:2] / media_id[2:4] / media_id[4:]
        if name is not None:
            path /= name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    def _copy(self, target: str, lines: list[str]) -> None:
        if not lines:
            raise RigError(f"nothing to copy into {target}")
        self._sql(f"COPY {target} FROM stdin;\n" + "\n".join(lines) + "\n\\.\n")


def jpeg_like(count: int, source: random.Random) -> bytes:
    """Bytes that do not compress, behind the first bytes of a JPEG."""
    head = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"
    return (head + source.randbytes(max(0, count - len(head))))[:count]
