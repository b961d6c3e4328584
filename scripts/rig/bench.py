"""Benchmarks: first backup, second backup with nothing new, a day later, restore; beside restic and kopia on the same data in one run.

Peers take part when RESTIC and KOPIA name their binaries; they get the database as one uncompressed `pg_dump -Fc -Z0` stream and the
media as a folder, the best simple recipe there is for them. CPU and memory are those of the client processes, not of the servers:
"own" is the tool or the peer itself, "helpers" are pg_dump, pg_restore and psql. Sent bytes and requests are MinIO's own count, the
same for all. Before the contestants, pg_dump alone writes to nowhere: nobody can be faster with one stream, and everything is
in the page cache for all of them. With several rounds, each in new repositories and each begun by another one, the least figure of each counts. Ratios are
ours / the best peer: below 1 is better.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

from demo import say, size
from generate import Generator
from ground import Ground, RigError
from homeserver import Homeserver, Installation, plain
from measure import Usage, pipeline
from minio import Minio
from postgres import Postgres
from tool import Tool, settings

STEPS = ("first backup", "nothing new", "a day later", "restore")
HEAD = f"{'wall':>8} {'own CPU':>9} {'helpers':>9} {'own memory':>11} {'all memory':>11} {'sent':>11} {'received':>11} {'requests':>8}"


@dataclasses.dataclass
class Cost:
    """What one step cost one contestant."""

    usage: Usage
    sent: int
    received: int
    requests: int

    def line(self) -> str:
        """One row below `HEAD`."""
        used = self.usage
        times = f"{used.wall:6.1f} s {used.own_cpu:7.1f} s {used.helper_cpu:7.1f} s"
        return f"{times} {size(used.own_memory):>11} {size(used.all_memory):>11} {size(self.sent):>11} {size(self.received):>11} {self.requests:8}"


FIGURES: dict[str, Callable[[Cost], float]] = {
    "wall": lambda cost: cost.usage.wall,
    "own CPU": lambda cost: cost.usage.own_cpu,
    "all CPU": lambda cost: cost.usage.own_cpu + cost.usage.helper_cpu,
    "memory": lambda cost: cost.usage.own_memory,
    "sent": lambda cost: cost.sent,
    "received": lambda cost: cost.received,
    "requests": lambda cost: cost.requests,
}


class Contestant:
    """Somebody who can back up and restore; `bucket` is new and its own."""

    name = ""

    def __init__(self, bench: Bench, bucket: str) -> None:
        self.bench, self.bucket = bench, bucket
        self.folder = bench.ground.folder(f"of-{bucket}")
        self.environment: dict[str, str] = {}
        self.prepare()

    def prepare(self) -> None:
        """Makes the repository."""
        raise NotImplementedError

    def backup(self) -> Usage:
        """One backup of the database and the media, or of one of them."""
        raise NotImplementedError

    def restore(self, folder: pathlib.Path, database: str) -> Usage:
        """Everything into a folder and an empty database."""
        raise NotImplementedError

    def run(self, *commands: list[str | os.PathLike[str]], own: int = 0) -> Usage:
        """A pipeline in the environment of the bench and of the contestant."""
        return pipeline(commands, own, {**self.bench.environment, **self.environment}, self.bench.ground.log(self.name))


class Ours(Contestant):
    """synapse-backup."""

    name = "synapse-backup"

    def prepare(self) -> None:
        bench = self.bench
        self.tool = Tool(bench.ground, bench.minio, settings(bench.minio, bench.installation, f"s3://{self.bucket}/matrix"), self.bucket)
        self.tool.run("init", "--unencrypted")
        self.environment = self.tool.environment
        self.only = ["--only", bench.part] if bench.part != "all" else []

    def backup(self) -> Usage:
        return self.run([self.tool.binary, "-c", self.tool.config, "--json", "backup", *self.only])

    def restore(self, folder: pathlib.Path, database: str) -> Usage:
        postgres = self.bench.postgres
        target = f"synapse=dbname={database} host={postgres.socket} port={postgres.port} user={postgres.superuser}"
        argv = [self.tool.binary, "-c", self.tool.config, "--json", "restore", "latest", "--to", folder, *self.only]
        return self.run([*argv, *(["--database", target] if self.bench.database else [])])


class Restic(Contestant):
    """restic, with its default compression."""

    name = "restic"

    def prepare(self) -> None:
        self.program = os.environ["RESTIC"]
        self.environment = {
            "RESTIC_REPOSITORY": f"s3:{self.bench.minio.url}/{self.bucket}",
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(self.folder),
        }
        self.run([self.program, "init"])

    def backup(self) -> Usage:
        used = Usage()
        if self.bench.database:
            store = [self.program, "backup", "-q", "--stdin", "--stdin-filename", "synapse.dump", "--tag", "database"]
            used += self.run(self.bench.dump, store, own=1)
        if self.bench.media:
            used += self.run([self.program, "backup", "-q", "--tag", "media", self.bench.installation.media_store])
        return used

    def restore(self, folder: pathlib.Path, database: str) -> Usage:
        used = Usage()
        if self.bench.database:
            used += self.run([self.program, "dump", "-q", "--tag", "database", "latest", "synapse.dump"], self.bench.load(database))
        if self.bench.media:
            used += self.run([self.program, "restore", "-q", "--tag", "media", "latest", "--target", folder])
        return used


class Kopia(Contestant):
    """kopia, with zstd switched on."""

    name = "kopia"

    def prepare(self) -> None:
        minio = self.bench.minio
        self.program = os.environ["KOPIA"]
        self.environment = {
            "KOPIA_PASSWORD": "bench",
            "KOPIA_CONFIG_PATH": str(self.folder / "config"),
            "KOPIA_CACHE_DIRECTORY": str(self.folder / "cache"),
            "KOPIA_LOG_DIR": str(self.folder / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        keys = [f"--access-key={minio.access_key}", f"--secret-access-key={minio.secret_key}"]
        server = [f"--bucket={self.bucket}", f"--endpoint=127.0.0.1:{minio.port}", "--disable-tls"]
        self.run([self.program, "repository", "create", "s3", *server, *keys])
        self.run([self.program, "policy", "set", "--global", "--compression=zstd"])

    def backup(self) -> Usage:
        used = Usage()
        store = [self.program, "snapshot", "create", "--no-progress"]
        if self.bench.database:
            used += self.run(self.bench.dump, [*store, "--stdin-file=synapse.dump", "/database"], own=1)
        if self.bench.media:
            used += self.run([*store, self.bench.installation.media_store])
        return used

    def restore(self, folder: pathlib.Path, database: str) -> Usage:
        listing = [self.program, "snapshot", "list", "--all", "--json"]
        listed = subprocess.run(listing, env={**self.bench.environment, **self.environment}, check=True, capture_output=True)
        # Oldest first: the newest of each source stays.
        roots = {snapshot["source"]["path"]: snapshot["rootEntry"]["obj"] for snapshot in json.loads(listed.stdout)}
        used = Usage()
        if self.bench.database:
            used += self.run([self.program, "show", f"{roots['/database']}/synapse.dump"], self.bench.load(database))
        if self.bench.media:
            used += self.run([self.program, "restore", "--no-progress", roots[str(self.bench.installation.media_store)], folder])
        return used


class Bench:
    """The data, the servers, and a stopwatch."""

    def __init__(self, ground: Ground, database_mib: int, media_mib: int, part: str) -> None:
        self.ground, self.part = ground, part
        self.database, self.media = part in ("all", "database"), part in ("all", "media")
        self.postgres, self.minio = Postgres(ground), Minio(ground)
        self.installation: Installation = plain(ground, self.postgres)
        synapse = Homeserver(ground, self.installation)
        synapse.start()  # makes the schema
        synapse.stop()
        self.generator = Generator(self.postgres, self.installation)
        self.generator.database(database_mib)
        self.generator.media(media_mib)
        self.costs: dict[tuple[str, str], list[Cost]] = {}
        path = f"{self.postgres.bin}:{os.environ.get('PATH', '')}"
        self.environment = {**os.environ, **self.postgres.environment, **self.minio.environment, "HOME": str(ground.path), "PATH": path}
        self.dump = [self.postgres.bin / "pg_dump", "-Fc", "-Z0", self.installation.database]
        self._traffic: dict[str, int] | None = None

    def load(self, database: str) -> list[str | os.PathLike[str]]:
        """The command that loads a dump from its standard input."""
        return [self.postgres.bin / "pg_restore", "--exit-on-error", "-d", database]

    def floor(self) -> None:
        """pg_dump alone, to nowhere."""
        used = pipeline([[*self.dump, "--no-sync", "-f", "/dev/null"]], 0, self.environment, self.ground.log("pg_dump"))
        print(f"   {'pg_dump alone':14} {used.wall:6.1f} s {used.own_cpu:7.1f} s", flush=True)

    def measure(self, contestant: Contestant, step: str, work: Callable[[], Usage]) -> None:
        """Time, CPU and memory of what `work` runs; bytes and requests of MinIO meanwhile."""
        os.sync()  # nobody pays for what others left to be written
        before = self._traffic or self.minio.settled_traffic()
        used = work()
        after = self._traffic = self.minio.settled_traffic()
        moved = {key: after[key] - before[key] for key in after}
        cost = Cost(used, moved["received_bytes"], moved["sent_bytes"], moved["requests"])
        self.costs.setdefault((contestant.name, step), []).append(cost)
        print(f"   {contestant.name:14} {cost.line()}", flush=True)

    def rest(self) -> None:
        """Lets PostgreSQL finish what the generator set off, and forgets the traffic up to here."""
        self.postgres.sql("VACUUM ANALYZE; CHECKPOINT;", self.installation.database)
        self._traffic = None


def bench(database_mib: int, media_mib: int, part: str, rounds: int, keep: bool) -> None:
    """All contestants through all steps, and the ratios."""
    kinds: list[type[Contestant]] = [Ours]
    kinds += [Restic] if os.environ.get("RESTIC") else []
    kinds += [Kopia] if os.environ.get("KOPIA") else []
    with Ground("bench", keep) as ground:
        say(f"A database of {database_mib} MiB and media of {media_mib} MiB on {os.cpu_count()} cores; measured: {part}")
        stage = Bench(ground, database_mib, media_mib, part)
        print(f"   {stage.generator.events} events, {stage.generator.files} media files")
        for number in range(1, rounds + 1):
            _round(stage, kinds, number, max(1, media_mib // 100))
        _ratios(stage, [kind.name for kind in kinds])


def _round(stage: Bench, kinds: list[type[Contestant]], number: int, day_mib: int) -> None:
    contestants = []
    for kind in kinds:
        bucket = f"{kind.name}-{number}"
        stage.minio.make_bucket(bucket)
        contestants.append(kind(stage, bucket))
    for step in STEPS[:3]:
        say(f"Round {number}: {step}")
        if step == "a day later":
            stage.generator.another_day(media_mib=day_mib)
        stage.rest()
        print(f"   {'':14} {HEAD}")
        if stage.database:
            stage.floor()
        for contestant in _in_turn(contestants, number):
            stage.measure(contestant, step, contestant.backup)
    say(f"Round {number}: restore")
    print(f"   {'':14} {HEAD}")
    truth = stage.postgres.digest("synapse", leave_out=("e2e_one_time_keys_json",))
    for contestant in _in_turn(contestants, number):
        _restore(stage, contestant, truth)
    for contestant in contestants:
        shutil.rmtree(stage.minio.data / contestant.bucket)  # the disk is needed; nobody asks for it again


def _in_turn(contestants: list[Contestant], number: int) -> list[Contestant]:
    """Another one begins each round: who comes first pays for what the others find ready, as PostgreSQL's log files."""
    first = (number - 1) % len(contestants)
    return contestants[first:] + contestants[:first]


def _restore(stage: Bench, contestant: Contestant, truth: dict[str, str]) -> None:
    stage.postgres.create_database("bench", stage.installation.role)
    folder = stage.ground.path / "restored"
    stage.measure(contestant, "restore", lambda: contestant.restore(folder, "bench"))
    if stage.database and stage.postgres.digest("bench", leave_out=("e2e_one_time_keys_json",)) != truth:
        raise RigError(f"{contestant.name}: the restored database is another")
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    if stage.media and files < stage.generator.files:
        raise RigError(f"{contestant.name}: {files} files were restored, there are {stage.generator.files} originals")
    stage.postgres.drop_database("bench")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _ratios(stage: Bench, names: list[str]) -> None:
    if len(names) < 2:
        print("\nNo peers: set RESTIC and KOPIA to their binaries for ratios.")
        return
    for peers in (names[1:], *([name] for name in names[1:] if len(names) > 2)):
        say(f"ours / {'the best peer' if len(peers) > 1 else peers[0]}")
        print(f"   {'':14} {' '.join(f'{figure:>9}' for figure in FIGURES)}")
        for step in STEPS:
            print(f"   {step:14} {' '.join(_ratio(stage, step, names[0], peers, figure) for figure in FIGURES.values())}")


def _ratio(stage: Bench, step: str, ours: str, peers: list[str], figure: Callable[[Cost], float]) -> str:
    least = {name: min(map(figure, stage.costs[name, step])) for name in (ours, *peers)}
    best = min(least[name] for name in peers)
    return f"{least[ours] / best:9.2f}" if best else f"{'-':>9}"
