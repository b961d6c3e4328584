"""Crowds of media: a million tiny files, and twenty thousand with 4 GiB; what a run costs, beside restic and kopia.

The first asks whether an ordinary night depends on the number of files: it must open none of the unchanged ones, and cost few
requests and little memory. The second asks how fast bytes go in and come out. Each bound is printed with what was measured; a bound
that does not hold is exit code 1. Contestants take turns, each alone on the disk, which therefore never holds more than one
repository beside the media. With several rounds the least figure of each counts.
"""

from __future__ import annotations

import hashlib
import math
import os
import pathlib
import random
import shutil
import threading
from collections.abc import Callable

from bench import Bench, Contestant, Kopia, Ours, Restic
from demo import say, size
from generate import jpeg_like
from ground import Ground, RigError
from measure import Usage

TINY_BYTES = (100, 500)
SIGMA = 1.5
LARGEST_BYTES = 50 << 20
COLUMNS = "local_media_repository (media_id, media_type, media_length, created_ts, upload_name, user_id, sha256, authenticated)"
NIGHT_REQUESTS, NIGHT_MEMORY, NIGHT_SHARE = 100, 256 << 20, 0.1
FIRST_SHARE, RESTORE_SHARE = 0.6, 0.8


class Bounds:
    """What must hold, and whether it did."""

    def __init__(self) -> None:
        self.broken = 0

    def hold(self, what: str, measured: float, bound: float, shown: Callable[[float], str] = "{:.2f}".format) -> None:
        """At most `bound`."""
        good = measured <= bound
        self.broken += not good
        print(f"   {'holds' if good else 'BROKEN'}: {what}: {shown(measured)}, at most {shown(bound)}", flush=True)


def million(count: int, rounds: int, keep: bool) -> int:
    """A night with nothing new over so many tiny files."""
    with Ground("million", keep) as ground:
        stage, bounds = _stage(ground), Bounds()
        say(f"{count} tiny files and their rows")
        crowd(stage, count, lambda source: source.randint(*TINY_BYTES))
        ours, peers = _contestant(stage, Ours, "ours"), [_contestant(stage, kind, kind.name) for kind in _peers() if kind is Restic]
        for contestant in (ours, *peers):
            _told(contestant, "first backup", contestant.backup())
        nights: dict[str, list[Usage]] = {}
        for number in range(1, rounds + 1):
            say(f"Round {number}: a night with nothing new")
            for contestant in (ours, *peers):
                nights.setdefault(contestant.name, []).append(contestant.backup())
                _told(contestant, "nothing new", nights[contestant.name][-1])
        _night(stage, ours, count, bounds)
        for peer in peers:
            best = {name: min(used.wall for used in all_used) for name, all_used in nights.items()}
            bounds.hold(f"wall time of a night / {peer.name}", best[ours.name] / best[peer.name], NIGHT_SHARE)
        _told(ours, "restore", _restore(stage, ours, count))
        return 1 if bounds.broken else 0


def few(count: int, total_bytes: int, rounds: int, keep: bool) -> int:
    """First backup and restore of so many files with so many bytes."""
    with Ground("few", keep) as ground:
        stage, bounds = _stage(ground), Bounds()
        say(f"{count} files with about {size(total_bytes)}")
        median = total_bytes / count / math.exp(SIGMA**2 / 2)
        crowd(stage, count, lambda source: min(LARGEST_BYTES, max(300, int(source.lognormvariate(math.log(median), SIGMA)))))
        costs: dict[tuple[str, str], list[Usage]] = {}
        for number in range(1, rounds + 1):
            say(f"Round {number}")
            for kind in (Ours, *_peers()):
                contestant = _contestant(stage, kind, f"{kind.name}-{number}")
                costs.setdefault((kind.name, "first backup"), []).append(_told(contestant, "first backup", contestant.backup()))
                costs.setdefault((kind.name, "restore"), []).append(_told(contestant, "restore", _restore(stage, contestant, count)))
            # Only now: for minutes after many files were deleted, ext4 is slow to make new ones (it passes over the inodes of late).
            for old in (*stage.minio.data.glob(f"*-{number}"), *stage.ground.path.glob("restored-*")):
                shutil.rmtree(old)
        for step, bound in (("first backup", FIRST_SHARE), ("restore", RESTORE_SHARE)):
            figures = (("wall time", lambda used: used.wall), ("CPU", lambda used: used.own_cpu + used.helper_cpu))
            for what, figure in figures:
                least = {name: min(map(figure, all_used)) for (name, of), all_used in costs.items() if of == step}
                peers = [value for name, value in least.items() if name != Ours.name]
                if peers:
                    bounds.hold(f"{step}, {what} / the best peer", least[Ours.name] / min(peers), bound)
        return 1 if bounds.broken else 0


def _stage(ground: Ground) -> Bench:
    return Bench(ground, 1, 1, "media")


def _peers() -> list[type[Contestant]]:
    named = ((Restic, "RESTIC"), (Kopia, "KOPIA"))
    return [kind for kind, variable in named if os.environ.get(variable)]


def _contestant(stage: Bench, kind: type[Contestant], bucket: str) -> Contestant:
    stage.minio.make_bucket(bucket)
    return kind(stage, bucket)


def _told(contestant: Contestant, step: str, used: Usage) -> Usage:
    print(f"   {contestant.name:14} {step:14} {used.wall:7.1f} s {used.own_cpu:7.1f} s CPU {size(used.own_memory):>11}", flush=True)
    return used


def _night(stage: Bench, ours: Contestant, count: int, bounds: Bounds) -> None:
    """What our own report says of a night, and that it holds with the media out of reach."""
    assert isinstance(ours, Ours)
    run = ours.tool.run("backup", "--only", "media", seconds=600)
    media, requests = run.report["media"], sum(run.report["requests"].values())
    print(f"   {run.report['requests']} {media}", flush=True)
    bounds.hold("requests of a night", requests, NIGHT_REQUESTS, "{:.0f}".format)
    bounds.hold("peak memory of a night", run.report["peak_memory_bytes"], NIGHT_MEMORY, lambda value: size(int(value)))
    if media["new"] or media["unchanged"] < count:
        raise RigError(f"an unchanged file was opened: {media}")
    store = stage.installation.media_store
    away = store.rename(store.with_name("away"))
    store.mkdir()
    try:
        run = ours.tool.run("backup", "--only", "media", "--audit", "none", seconds=600)
    finally:
        store.rmdir()
        away.rename(store)
    if run.report["media"]["unchanged"] != media["unchanged"] or run.report["problems"]:
        raise RigError(f"something was looked for in the media store: {run.report['media']}")
    print("   holds: with the media store empty, a night without audit misses nothing: no file was looked for", flush=True)


def _restore(stage: Bench, contestant: Contestant, count: int) -> Usage:
    folder = stage.ground.path / f"restored-{contestant.bucket}"
    used = contestant.restore(folder, "")
    files = sum(len(names) for _, _, names in os.walk(folder))
    if files < count:
        raise RigError(f"{contestant.name}: {files} files were restored, there are {count}")
    return used


def crowd(stage: Bench, count: int, bytes_of: Callable[[random.Random], int]) -> None:
    """Files of these sizes, and their rows; one thread for each core writes."""
    shares = [range(first, count, os.cpu_count() or 1) for first in range(os.cpu_count() or 1)]
    rows: list[list[str]] = [[] for _ in shares]
    work = [threading.Thread(target=_fill, args=(stage.installation.media_store, share, bytes_of, out)) for share, out in zip(shares, rows)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    lines = [line for share in rows for line in share]
    if len(lines) != count:
        raise RigError("not all files could be written")
    stage.postgres.sql(f"COPY {COLUMNS} FROM stdin;\n" + "\n".join(lines) + "\n\\.\n", stage.installation.database)
    stage.postgres.sql("VACUUM ANALYZE local_media_repository; CHECKPOINT;", stage.installation.database)
    os.sync()


def _fill(store: pathlib.Path, numbers: range, bytes_of: Callable[[random.Random], int], rows: list[str]) -> None:
    source, made = random.Random(numbers.start), set()
    for number in numbers:
        body = jpeg_like(bytes_of(source), source)
        digest = hashlib.sha256(body).hexdigest()
        # Two letters and two letters: as many folders as Synapse has, or nearly.
        media_id = f"{digest[:2]}{digest[2:4]}{number:020}"
        folder = f"{store}/local_content/{media_id[:2]}/{media_id[2:4]}"
        if folder not in made:
            os.makedirs(folder, exist_ok=True)
            made.add(folder)
        with open(f"{folder}/{media_id[4:]}", "wb", buffering=0) as file:
            file.write(body)
        rows.append(f"{media_id}\timage/jpeg\t{len(body)}\t{1_600_000_000_000 + number}\tIMG.jpg\t@user{number % 331}:rig.example\t{digest}\tt")
