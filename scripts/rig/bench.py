"""Benchmarks: first backup, second backup with nothing new, a day later, restore; beside restic and kopia on the same data in one run.

Peers take part when RESTIC and KOPIA name their binaries; they get the database as one uncompressed `pg_dump -Fc -Z0` stream and the
media as a folder, the best simple recipe there is for them. CPU and memory are those of the client processes (the tool or the peer, with
pg_dump and pg_restore), not of the servers; sent bytes and requests are MinIO's own count, the same for all. Ratios are ours / the
best peer: below 1 is better.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

from demo import say, size
from generate import Generator
from ground import Ground, RigError
from homeserver import Homeserver, Installation, plain
from minio import Minio
from postgres import Postgres
from tool import Tool, settings

STEPS = ("first backup", "nothing new", "a day later", "restore")


@dataclasses.dataclass
class Cost:
    """What one step cost one contestant."""

    wall: float
    cpu: float
    memory: int
    sent: int
    received: int
    requests: int

    def line(self) -> str:
        return (
            f"{self.wall:8.1f} s {self.cpu:8.1f} s {size(self.memory):>11} {size(self.sent):>11} {size(self.received):>11} {self.requests:8}"
        )


class Contestant:
    """Somebody who can back up and restore; each step is one shell script or one run of the tool."""

    name = ""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def prepare(self) -> None:
        """Makes the repository."""

    def backup(self) -> None:
        """One backup of the database and the media."""
        raise NotImplementedError

    def restore(self, folder: pathlib.Path, database: str) -> None:
        """Everything into a folder and an empty database."""
        raise NotImplementedError


class Ours(Contestant):
    """synapse-backup."""

    name = "synapse-backup"

    def prepare(self) -> None:
        bench = self.bench
        self.tool = Tool(bench.ground, bench.minio, settings(bench.minio, bench.installation, "s3://ours/matrix"), "ours")
        self.tool.run("init")

    def backup(self) -> None:
        self.tool.run("backup")

    def restore(self, folder: pathlib.Path, database: str) -> None:
        postgres = self.bench.postgres
        target = f"synapse=dbname={database} host={postgres.socket} port={postgres.port} user={postgres.superuser}"
        self.tool.run("restore", "latest", "--to", folder, "--database", target)


class Restic(Contestant):
    """restic, with its default compression."""

    name = "restic"

    def prepare(self) -> None:
        self.program = os.environ["RESTIC"]
        self.environment = {
            "RESTIC_REPOSITORY": f"s3:{self.bench.minio.url}/restic",
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(self.bench.ground.path / "restic-cache"),
        }
        self.shell(f"{self.program} init")

    def shell(self, script: str) -> None:
        self.bench.shell(script, self.environment)

    def backup(self) -> None:
        media = self.bench.installation.media_store
        self.shell(f"pg_dump -Fc -Z0 synapse | {self.program} backup -q --stdin --stdin-filename synapse.dump --tag database")
        self.shell(f"{self.program} backup -q --tag media {media}")

    def restore(self, folder: pathlib.Path, database: str) -> None:
        self.shell(f"{self.program} dump -q --tag database latest synapse.dump | pg_restore --exit-on-error -d {database}")
        self.shell(f"{self.program} restore -q --tag media latest --target {folder}")


class Kopia(Contestant):
    """kopia, with zstd switched on."""

    name = "kopia"

    def prepare(self) -> None:
        minio = self.bench.minio
        self.program = os.environ["KOPIA"]
        base = self.bench.ground.path
        self.environment = {
            "KOPIA_PASSWORD": "bench",
            "KOPIA_CONFIG_PATH": str(base / "kopia.config"),
            "KOPIA_CACHE_DIRECTORY": str(base / "kopia-cache"),
            "KOPIA_LOG_DIR": str(base / "kopia-logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        keys = f"--access-key={minio.access_key} --secret-access-key={minio.secret_key}"
        self.shell(f"{self.program} repository create s3 --bucket=kopia --endpoint=127.0.0.1:{minio.port} --disable-tls {keys}")
        self.shell(f"{self.program} policy set --global --compression=zstd")

    def shell(self, script: str) -> None:
        self.bench.shell(script, self.environment)

    def backup(self) -> None:
        self.shell(f"pg_dump -Fc -Z0 synapse | {self.program} snapshot create --no-progress --stdin-file=synapse.dump /database")
        self.shell(f"{self.program} snapshot create --no-progress {self.bench.installation.media_store}")

    def restore(self, folder: pathlib.Path, database: str) -> None:
        roots = {
            snapshot["source"]["path"]: snapshot["rootEntry"]["obj"]
            for snapshot in json.loads(self.bench.output(f"{self.program} snapshot list --all --json", self.environment))
        }  # oldest first: the newest of each source stays
        media = str(self.bench.installation.media_store)
        self.shell(f"{self.program} show {roots['/database']}/synapse.dump | pg_restore --exit-on-error -d {database}")
        self.shell(f"{self.program} restore --no-progress {roots[media]} {folder}")


class Bench:
    """The data, the servers, and a stopwatch."""

    def __init__(self, ground: Ground, database_mib: int, media_mib: int) -> None:
        self.ground = ground
        self.postgres, self.minio = Postgres(ground), Minio(ground)
        self.installation: Installation = plain(ground, self.postgres)
        synapse = Homeserver(ground, self.installation)
        synapse.start()  # makes the schema
        synapse.stop()
        self.generator = Generator(self.postgres, self.installation)
        self.generator.database(database_mib)
        self.generator.media(media_mib)
        self.costs: dict[tuple[str, str], Cost] = {}

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        """For shells of the peers: PostgreSQL and MinIO within reach."""
        path = f"{self.postgres.bin}:{os.environ.get('PATH', '')}"
        return {**os.environ, **self.postgres.environment, **self.minio.environment, "HOME": str(self.ground.path), "PATH": path, **more}

    def shell(self, script: str, more: dict[str, str]) -> None:
        """Runs a pipeline that must succeed."""
        with self.ground.log("peers").open("ab") as log:
            log.write(f"$ {script}\n".encode())
            log.flush()
            done = subprocess.run(["bash", "-ceu", "-o", "pipefail", script], env=self.environment(more), stdout=log, stderr=log)
        if done.returncode != 0:
            raise RigError(f"a peer failed: {script} (log: {self.ground.log('peers')})")

    def output(self, script: str, more: dict[str, str]) -> str:
        """What a command prints."""
        return subprocess.run(["bash", "-ceu", script], env=self.environment(more), check=True, capture_output=True, text=True).stdout

    @contextlib.contextmanager
    def measure(self, who: str, step: str) -> Iterator[None]:
        """Time, CPU and memory of the children, bytes and requests of MinIO, while the block runs."""
        before, usage = self.minio.settled_traffic(), _children()
        with _PeakMemory() as memory:
            begun = time.monotonic()
            yield
            wall = time.monotonic() - begun
        cpu = _children() - usage
        after = self.minio.settled_traffic()
        moved = {key: after[key] - before[key] for key in after}
        cost = Cost(wall, cpu, memory.peak, moved["received_bytes"], moved["sent_bytes"], moved["requests"])
        self.costs[who, step] = cost
        print(f"   {who:14} {cost.line()}", flush=True)


def bench(database_mib: int, media_mib: int, keep: bool) -> None:
    """All contestants through all steps, and the ratios."""
    kinds: list[type[Contestant]] = [Ours]
    kinds += [Restic] if os.environ.get("RESTIC") else []
    kinds += [Kopia] if os.environ.get("KOPIA") else []
    with Ground("bench", keep) as ground:
        say(f"A database of {database_mib} MiB and media of {media_mib} MiB on {os.cpu_count()} cores")
        stage = Bench(ground, database_mib, media_mib)
        print(f"   {stage.generator.events} events, {stage.generator.files} media files")
        contestants = [kind(stage) for kind in kinds]
        for contestant, bucket in zip(contestants, ("ours", *(kind.name for kind in kinds[1:]))):
            stage.minio.make_bucket(bucket)
            contestant.prepare()
        for step in STEPS[:3]:
            say(f"{step}: wall, CPU, memory, sent, received, requests")
            if step == "a day later":
                stage.generator.another_day(media_mib=max(1, media_mib // 100))
            for contestant in contestants:
                with stage.measure(contestant.name, step):
                    contestant.backup()
        say("restore: wall, CPU, memory, sent, received, requests")
        truth = stage.postgres.digest("synapse", leave_out=("e2e_one_time_keys_json",))
        for contestant in contestants:
            _restore(stage, contestant, truth)
        _ratios(stage, [contestant.name for contestant in contestants])


def _restore(stage: Bench, contestant: Contestant, truth: dict[str, str]) -> None:
    stage.postgres.create_database("bench", stage.installation.role)
    folder = stage.ground.path / "restored"
    with stage.measure(contestant.name, "restore"):
        contestant.restore(folder, "bench")
    if stage.postgres.digest("bench", leave_out=("e2e_one_time_keys_json",)) != truth:
        raise RigError(f"{contestant.name}: the restored database is another")
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    if files < stage.generator.files:
        raise RigError(f"{contestant.name}: {files} files were restored, there are {stage.generator.files} originals")
    stage.postgres.drop_database("bench")
    shutil.rmtree(folder)


def _ratios(stage: Bench, names: list[str]) -> None:
    if len(names) < 2:
        print("\nNo peers: set RESTIC and KOPIA to their binaries for ratios.")
        return
    say("ours / the best peer")
    print(f"   {'':14} {'wall':>8} {'CPU':>8} {'memory':>8} {'sent':>8}")
    for step in STEPS:
        ours = stage.costs[names[0], step]

        def ratio(value: Callable[[Cost], float], ours: Cost = ours, step: str = step) -> str:
            best = min(value(stage.costs[name, step]) for name in names[1:])
            return f"{value(ours) / best:8.2f}" if best else f"{'-':>8}"

        columns = [ratio(lambda c: c.wall), ratio(lambda c: c.cpu), ratio(lambda c: c.memory), ratio(lambda c: c.sent)]
        print(f"   {step:14} {' '.join(columns)}")


def _children() -> float:
    """CPU seconds of all children waited for so far; servers are not among them while they run."""
    times = os.times()
    return times.children_user + times.children_system


class _PeakMemory:
    """Samples the resident memory of the children that are not servers: the largest sum seen."""

    def __enter__(self) -> _PeakMemory:
        import threading

        self.peak, self._servers = 0, set(_descendants(os.getpid()))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            # Backends that PostgreSQL forks are children of a server, hence descend from the known ones.
            alive = [pid for pid in _descendants(os.getpid(), self._servers)]
            self.peak = max(self.peak, sum(_resident(pid) for pid in alive))


def _descendants(parent: int, without: set[int] | None = None) -> list[int]:
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, task.read_text().split()):
                if without is None or pid not in without:
                    found += [pid, *_descendants(pid, without)]
    return found


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0
