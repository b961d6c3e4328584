"""Thirty ordinary days of a database: what each night sends and what is stored at the end, by size of blobs, beside restic.

A day brings new rows at the end of the big tables, updates scattered over the past, and deletions whose space the rows of the
next day take; every night VACUUM runs, then everybody backs up the same database. One day a whole room is purged. The size of
blobs stands in repository.json, which is written anew here before the first backup: no other program may do that. restic takes part
when RESTIC names its binary. Sent bytes are the growth of the bucket. The table is printed in Markdown, after each day's line.
"""

from __future__ import annotations

import json
import os

from bench import Bench, Contestant, Ours, Restic
from demo import say
from ground import Ground, RigError

KIB, MIB = 1024, 1024 * 1024
KEY = "matrix/repository.json"
NEW_SHARE = 0.01
PURGED_ROOM = "!room13:rig.example"

# One state group in 512 goes (as the state compressor does), and one event in 2048 (as retention does).
DELETIONS = """
DELETE FROM state_groups_state WHERE hashint8(state_group) & 511 = %(day)s;
DELETE FROM event_json WHERE hashtext(event_id) & 2047 = 1000 + %(day)s;
"""
PURGE = f"""
DELETE FROM state_groups_state WHERE room_id = '{PURGED_ROOM}';
DELETE FROM event_json WHERE room_id = '{PURGED_ROOM}';
DELETE FROM events WHERE room_id = '{PURGED_ROOM}';
"""


class Sized(Ours):
    """synapse-backup with an average size of blobs of its own: a quarter of it at least, four times of it at most."""

    def __init__(self, stage: Bench, kib: int) -> None:
        self.name, self.kib = f"{kib} KiB", kib
        super().__init__(stage, f"days-{kib}")

    def prepare(self) -> None:
        super().prepare()
        minio, average = self.bench.minio, self.kib * KIB
        info = json.loads(minio.get(self.bucket, KEY))
        info["chunk_sizes"] = {"min": average // 4, "average": average, "max": average * 4}
        minio.put(self.bucket, KEY, json.dumps(info).encode())

    def snapshots(self) -> list[str]:
        """Ids, oldest first."""
        listed = self.tool.run("snapshots").report["snapshots"]
        return [snapshot["id"] for snapshot in sorted(listed, key=lambda snapshot: snapshot["time"])]

    def blobs(self) -> tuple[int, int]:
        """How many blobs the dump streams of the newest snapshot have, and how many bytes."""
        shown = self.tool.run("show", self.snapshots()[-1]).report["snapshot"]
        lists = [stream["list"] for database in shown["databases"] for stream in database["streams"]]
        return sum(one["blobs"] for one in lists), sum(one["bytes"] for one in lists)

    def load(self, snapshot: str) -> tuple[dict, dict[str, str]]:
        """Restores a snapshot into a scratch database; the report and the digests."""
        postgres, folder = self.bench.postgres, self.bench.ground.path / "restored"
        postgres.create_database("days", self.bench.installation.role)
        target = f"synapse=dbname=days host={postgres.socket} port={postgres.port} user={postgres.superuser}"
        loaded = self.tool.run("restore", snapshot, "--to", folder, "--only", "database", "--database", target)
        digests = postgres.digest("days", leave_out=("e2e_one_time_keys_json",))
        postgres.drop_database("days")
        return loaded.report, digests


def days(database_mib: int, count: int, sizes: list[int], keep: bool) -> None:
    """All days for all sizes, and the table."""
    with Ground("days", keep) as ground:
        stage = Bench(ground, database_mib, 1, "database")
        contestants: list[Contestant] = []
        for kib in sizes:
            stage.minio.make_bucket(f"days-{kib}")
            contestants.append(Sized(stage, kib))
        if os.environ.get("RESTIC"):
            stage.minio.make_bucket("days-restic")
            contestants.append(Restic(stage, "days-restic"))
        say(f"A database of {database_mib} MiB, {count} days; bytes sent each night in MiB")
        names = [contestant.name for contestant in contestants]
        print(f"| day | {' | '.join(names)} |\n|---|{'---|' * len(names)}", flush=True)
        sent: dict[str, list[int]] = {name: [] for name in names}
        for day in range(1, count + 1):
            if day > 1:
                _pass(stage, day, purge=day == count // 2)
            for contestant in contestants:
                before = _stored(stage, contestant)
                contestant.backup()
                sent[contestant.name].append(_stored(stage, contestant) - before)
            what = f"{day} (a room purged)" if day == count // 2 else str(day)
            print(f"| {what} | {' | '.join(_mib(sent[name][-1]) for name in names)} |", flush=True)
        _summary(stage, contestants, sent)


def _pass(stage: Bench, day: int, purge: bool) -> None:
    stage.generator.another_day(share=NEW_SHARE, media_mib=0)
    database = stage.installation.database
    stage.postgres.sql(DELETIONS % {"day": day}, database)
    if purge:
        stage.postgres.sql(PURGE, database)
    stage.postgres.sql("VACUUM ANALYZE; CHECKPOINT;", database)


def _stored(stage: Bench, contestant: Contestant) -> int:
    return sum(stage.minio.list(contestant.bucket).values())


def _mib(count: float) -> str:
    return f"{count / MIB:.1f}"


def _summary(stage: Bench, contestants: list[Contestant], sent: dict[str, list[int]]) -> None:
    truth = stage.postgres.digest(stage.installation.database, leave_out=("e2e_one_time_keys_json",))
    print("\n| | first night | median night | night of the purge | stored at the end | mean blob | index memory per TiB | restore receives: first | last | peak memory |")
    print(f"|{'---|' * 10}")
    for contestant in contestants:
        nights = sent[contestant.name]
        later = sorted(nights[1:])
        figures = [nights[0], later[len(later) // 2], nights[len(nights) // 2 - 1], _stored(stage, contestant)]
        line = [contestant.name, *map(_mib, figures)]
        if isinstance(contestant, Sized):
            blobs, read = contestant.blobs()
            snapshots = contestant.snapshots()
            (first, _), (last, digests) = contestant.load(snapshots[0]), contestant.load(snapshots[-1])
            if digests != truth:
                raise RigError(f"{contestant.name}: the restored database is another")
            line += [f"{read / blobs / KIB:.0f} KiB", f"{ENTRY_BYTES * 1024 * 1024 * MIB * blobs / read / MIB:.0f} MiB"]
            line += [_mib(first["received_bytes"]), _mib(last["received_bytes"]), f"{last['peak_memory_bytes'] / MIB:.0f} MiB"]
        print(f"| {' | '.join(line)} |", flush=True)


ENTRY_BYTES = 56  # of one blob in the index in memory (src/repo/catalog.rs)
