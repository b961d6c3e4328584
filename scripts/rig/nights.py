"""Two hundred nights of a small homeserver on a real MinIO: backup, forget and prune every night, and what is left of it.

A day brings new rows, rows that change, new media, media that are deleted; now and then a whole room is purged. Every night a backup,
a retention of 7 daily, 4 weekly and 6 monthly snapshots, and a prune. Days pass in seconds, so the calendar is the rig's own (it
names the snapshots that a policy lets go; the policy itself has its own tests) and the grace period is some seconds long. At the end
must hold: the bucket is at most 1.2 times what a fresh repository with a copy of the same snapshots takes; the requests of a night
have not grown; every snapshot restores identically. The table is printed in Markdown; a bound that does not hold is exit code 1.
"""

from __future__ import annotations

import datetime
import shutil
import time

from bench import Bench, Ours
from crowd import Bounds
from demo import say, size
from ground import Ground
from tool import Tool, settings
from truth import Truths, hasten

MIB = 1024 * 1024
BUCKET, FRESH = "nights", "fresh"
GRACE, WINDOW = 6, 5
FIRST = datetime.date(2026, 1, 1)
DAILY, WEEKLY, MONTHLY = 7, 4, 6
STORED_SHARE, REQUESTS_SHARE, ROUNDS_MAX = 1.2, 1.1, 12

# One state group in 512 goes (as the state compressor does), and one event in 2048 (as retention does).
DELETIONS = """
DELETE FROM state_groups_state WHERE hashint8(state_group) & 511 = %(day)s %% 512;
DELETE FROM event_json WHERE hashtext(event_id) & 2047 = 1000 + %(day)s;
"""
PURGE = """
DELETE FROM state_groups_state WHERE room_id = '%(room)s';
DELETE FROM event_json WHERE room_id = '%(room)s';
DELETE FROM events WHERE room_id = '%(room)s';
"""
DELETED_MEDIA = """
DELETE FROM local_media_repository_thumbnails WHERE media_id = '%(id)s';
DELETE FROM local_media_repository WHERE media_id = '%(id)s';
"""


def nights(database_mib: int, media_mib: int, count: int, keep: bool) -> int:
    """All nights, the table, the bounds."""
    with Ground("nights", keep) as ground:
        stage, bounds = Bench(ground, database_mib, media_mib, "all"), Bounds()
        stage.minio.make_bucket(BUCKET)
        ours = Ours(stage, BUCKET)
        hasten(stage.minio, BUCKET, GRACE, WINDOW)
        truths = Truths(ground, stage.postgres, stage.installation)
        say(f"A database of {database_mib} MiB, media of {media_mib} MiB, {count} nights")
        print("| night | snapshots | stored | packs | segments | requests of the backup | of the prune | moved by prunes since |\n|---|---|---|---|---|---|---|---|", flush=True)
        story = _Story(stage, ours.tool, truths)
        for night in range(1, count + 1):
            story.night(night)
            if night == 1 or night % 10 == 0:
                story.line(night)
        return _end(stage, ours.tool, story, truths, bounds)


class _Story:
    """What happened so far."""

    def __init__(self, stage: Bench, tool: Tool, truths: Truths) -> None:
        self.stage, self.tool, self.truths = stage, tool, truths
        self.kept: dict[str, datetime.date] = {}
        self.requests: list[tuple[int, int]] = []
        self.moved = 0

    def night(self, night: int) -> None:
        """A day and the night behind it."""
        if night > 1:
            self._day(night)
        truth = self.truths.now()
        backup = self.tool.run("backup")
        snapshot = backup.report["snapshot"]
        self.truths.of[snapshot] = truth
        self.kept[snapshot] = FIRST + datetime.timedelta(days=night - 1)
        gone = [one for one in self.kept if one not in wanted(self.kept)]
        if gone:
            self.tool.run("forget", *gone)
        for one in gone:
            del self.kept[one], self.truths.of[one]
        prune = self.tool.run("prune")
        self.moved += prune.report["applied"]["moved_bytes"]
        self.requests.append((backup.requests, prune.requests))

    def line(self, night: int) -> None:
        """A line of the table."""
        stored = self.stage.minio.list(BUCKET)
        packs = sum(1 for key in stored if "/packs/" in key)
        segments = sum(1 for key in stored if "/index/" in key)
        ten = self.requests[-10:]
        requests = " | ".join(f"{sum(one[at] for one in ten) / len(ten):.0f}" for at in (0, 1))
        print(f"| {night} | {len(self.kept)} | {size(sum(stored.values()))} | {packs} | {segments} | {requests} | {size(self.moved)} |", flush=True)
        self.moved = 0

    def _day(self, night: int) -> None:
        generator, postgres, database = self.stage.generator, self.stage.postgres, self.stage.installation.database
        generator.another_day(share=0.004, media_mib=1)
        postgres.sql(DELETIONS % {"day": night}, database)
        if night % 60 == 0:
            postgres.sql(PURGE % {"room": f"!room{night // 60}:rig.example"}, database)
        if night % 5 == 0:
            self._delete_media(5)
        postgres.sql("VACUUM ANALYZE;", database)

    def _delete_media(self, count: int) -> None:
        found = self.stage.postgres.sql(
            f"SELECT media_id FROM local_media_repository ORDER BY created_ts, media_id LIMIT {count}", self.stage.installation.database
        )
        for media_id in found.splitlines():
            place = (media_id[:2], media_id[2:4], media_id[4:])
            self.stage.installation.media_store.joinpath("local_content", *place).unlink()
            shutil.rmtree(self.stage.installation.media_store.joinpath("local_thumbnails", *place), ignore_errors=True)
            self.stage.postgres.sql(DELETED_MEDIA % {"id": media_id}, self.stage.installation.database)


def wanted(taken: dict[str, datetime.date]) -> set[str]:
    """The newest of each of the newest days, weeks and months."""
    stay: set[str] = set()
    by_age = sorted(taken.items(), key=lambda one: one[1], reverse=True)
    for rule, period in ((DAILY, lambda day: day), (WEEKLY, lambda day: day.isocalendar()[:2]), (MONTHLY, lambda day: (day.year, day.month))):
        newest: dict[object, str] = {}
        for snapshot, day in by_age:
            newest.setdefault(period(day), snapshot)
        stay.update(list(newest.values())[:rule])
    return stay


def _end(stage: Bench, tool: Tool, story: _Story, truths: Truths, bounds: Bounds) -> int:
    say("What is left")
    at_the_end = sum(stage.minio.list(BUCKET).values())
    for _ in range(ROUNDS_MAX):  # what was marked in the last nights goes
        time.sleep(GRACE + 1)
        report = tool.run("prune").report
        if not any(report["plan"][key] for key in ("delete", "condemn", "repack", "orphan_markers", "bytes_after_grace")):
            break
    stage.minio.make_bucket(FRESH)
    fresh = Tool(stage.ground, stage.minio, settings(stage.minio, stage.installation, f"s3://{FRESH}/matrix"), FRESH)
    fresh.run("init", "--unencrypted")
    tool.run("copy", "--all", "--to", f"s3://{FRESH}/matrix")
    needed, stored = sum(stage.minio.list(FRESH).values()), sum(stage.minio.list(BUCKET).values())
    print(f"   {len(story.kept)} snapshots; stored after the last night {size(at_the_end)}, a grace period later {size(stored)}; a fresh copy {size(needed)}")
    bounds.hold("stored after the last night / a fresh copy", at_the_end / needed, STORED_SHARE)
    bounds.hold("stored a grace period later / a fresh copy", stored / needed, STORED_SHARE)
    for at, what in enumerate(("backup", "prune")):
        early, late = (_mean(story.requests[first:last], at) for first, last in ((50, 100), (150, 200)))
        print(f"   requests of a {what}: {early:.1f} in nights 51 to 100, {late:.1f} in nights 151 to 200")
        if early and late:
            bounds.hold(f"requests of a {what}, nights 151 to 200 / 51 to 100", late / early, REQUESTS_SHARE)
    tool.run("verify", "--read-data")
    for snapshot in story.kept:
        run = truths.check(tool, snapshot)
        bounds.hold(f"exit code of a restore of {snapshot[:8]}, identical", run.exit_code, 0, "{:.0f}".format)
    return 1 if bounds.broken else 0


def _mean(requests: list[tuple[int, int]], at: int) -> float:
    return sum(one[at] for one in requests) / len(requests) if requests else 0.0
