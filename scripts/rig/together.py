"""Everything at once on one real MinIO for some minutes: backups (now and then two), prunes, copies and restores, and some are killed.

A small homeserver in a real PostgreSQL changes between backups, never during one, so that for each snapshot it is known what must come
back. Two repositories in two buckets; the second is kept in step by `copy --all`; both are pruned by two programs each that keep few
snapshots, with a grace period of some seconds, so that packs are marked, moved and deleted all the time. One run in eight is killed
(SIGKILL) at some moment. No verb may fail but for the one reason there is: a snapshot that it was reading was forgotten meanwhile.
In the end everything stands still; then every listed snapshot of both must hold under `verify --read-data` and restore identically,
and prunes must leave nothing behind that no snapshot needs.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import threading
import time

from bench import Bench
from demo import say, size
from generate import Generator
from ground import Ground, RigError
from tool import Run, Tool, settings
from truth import Truths, hasten

GRACE, WINDOW = 15, 12
KEPT = 4
KILLED = 8  # one run in so many
FIRST, SECOND = "first", "second"
FORGOTTEN = ("was forgotten meanwhile", "no snapshot")
STILL_ROUNDS = 12


class Together:
    """The stage, and what its threads have done."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground, self.random = ground, random.Random(seed)
        self.stage = Bench(ground, 24, 24, "all")
        self.truths = Truths(ground, self.stage.postgres, self.stage.installation)
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.counts: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        for bucket in (FIRST, SECOND):
            self.stage.minio.make_bucket(bucket)
            self.tool("init", bucket).run("init", "--unencrypted")
            hasten(self.stage.minio, bucket, GRACE, WINDOW)

    def tool(self, name: str, bucket: str) -> Tool:
        """A machine of its own, as it were: settings and folder."""
        minio, keep = self.stage.minio, f"keep: {{last: {KEPT}}}\n"
        return Tool(self.ground, minio, settings(minio, self.stage.installation, f"s3://{bucket}/matrix", keep), f"{name}-{bucket}")

    def run(self, tool: Tool, *arguments: str, may_kill: bool = True) -> Run | None:
        """One run; `None` when it was killed, or failed because what it read was forgotten."""
        verb = arguments[0]
        running = tool.begin(*arguments)
        with self.lock:
            dies = may_kill and self.random.randrange(KILLED) == 0
            after = self.random.uniform(0.05, 3.0)
        if dies:
            time.sleep(after)
            os.kill(running.process.pid, signal.SIGKILL)  # not through Popen, which would reap one that has ended
        done = running.finish((0, 1, -signal.SIGKILL), 300)
        if done.exit_code == 0:
            self.note(verb, done)
            return done
        if done.exit_code > 0:
            said = done.explain()
            if not any(words in said for words in FORGOTTEN):
                self.fail(f"{tool.name}: {verb}: {said} (log: {running.stderr})")
            self.note(f"{verb}, snapshot forgotten meanwhile", done)
        else:
            self.note(f"{verb}, killed", None)
        return None

    def note(self, what: str, done: Run | None) -> None:
        """Counts what happened."""
        with self.lock:
            self.counts[what] += 1
            if done is None:
                return
            self.counts["requests"] += done.requests
            applied = done.report.get("applied") or {}
            for key in ("deleted", "condemned", "repacked"):
                self.counts[f"packs {key}"] += applied.get(key, 0)
            self.counts["segments merged"] += (done.report.get("compacted") or {}).get("merged", 0)

    def fail(self, text: str) -> None:
        """Remembers what went wrong, and ends the run."""
        with self.lock:
            self.errors.append(text)
        print(f"   WRONG: {text}", flush=True)
        self.over.set()

    # Each of these is a thread.

    def back_up(self) -> None:
        """Days and backups; every third time two at once."""
        tools = [self.tool(name, FIRST) for name in ("backup", "other-backup")]
        generator: Generator = self.stage.generator
        for number in range(1, 1_000_000):
            if self.over.is_set():
                return
            truth = self.truths.now()
            at_once = tools[: 2 if number % 3 == 0 else 1]
            taken: list[Run | None] = [None] * len(at_once)

            def one(at: int) -> None:
                taken[at] = self.run(at_once[at], "backup")

            threads = [threading.Thread(target=self.guarded, args=(lambda at=at: one(at),)) for at in range(len(at_once))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for run in taken:
                if run is not None:
                    self.truths.of[run.report["snapshot"]] = truth
            generator.another_day(share=0.01, media_mib=1)
            self.stage.postgres.sql(f"DELETE FROM event_json WHERE hashtext(event_id) & 63 = {number % 64}; VACUUM;", self.stage.installation.database)

    def prune(self, name: str, bucket: str) -> None:
        """Prunes, with a little rest."""
        tool = self.tool(name, bucket)
        while not self.over.wait(self.pause(2.0)):
            self.run(tool, "prune", "--yes-really")

    def copy(self) -> None:
        """Keeps the second repository in step."""
        tool = self.tool("copy", FIRST)
        while not self.over.wait(self.pause(1.0)):
            self.run(tool, "copy", "--all", "--to", f"s3://{SECOND}/matrix")

    def restore(self, bucket: str) -> None:
        """Restores one of the snapshots that are listed, and compares."""
        tool = self.tool("restore", bucket)
        while not self.over.wait(self.pause(1.0)):
            listed = tool.run("snapshots").report["snapshots"]
            known = [one["id"] for one in listed if not one["late"] and one["id"] in self.truths.of]
            if not known:
                continue
            with self.lock:
                chosen = self.random.choice(known)
            run = self.truths.check(tool, chosen)
            if run.exit_code == 0:
                self.note("restore", run)
            elif chosen in [one["id"] for one in tool.run("snapshots").report["snapshots"]]:
                self.fail(f"restore of {chosen}, which is still listed in {bucket}: {run.explain()}")
            else:
                self.note("restore, snapshot forgotten meanwhile", run)

    def pause(self, most: float) -> float:
        """Some rest."""
        with self.lock:
            return self.random.uniform(0.0, most)

    def guarded(self, work) -> None:  # noqa: ANN001
        """A thread that fails ends the run."""
        try:
            work()
        except Exception as error:  # noqa: BLE001
            self.fail(f"{type(error).__name__}: {error}")

    def everything(self, minutes: float) -> None:
        """All threads, until the time is over or something is wrong."""
        works = [self.back_up, self.copy]
        works += [lambda name=name, bucket=bucket: self.prune(name, bucket) for bucket in (FIRST, SECOND) for name in ("prune", "other-prune")]
        works += [lambda bucket=bucket: self.restore(bucket) for bucket in (FIRST, SECOND)]
        threads = [threading.Thread(target=self.guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end and not self.over.wait(30):
            print(f"   {int((end - time.monotonic()) / 60) + 1:3} min to go: {self.told()}", flush=True)
        self.over.set()
        for thread in threads:
            thread.join()

    def told(self) -> str:
        """The counts in a line."""
        with self.lock:
            return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))

    def still(self, bucket: str) -> None:
        """Nothing runs any more: every listed snapshot is whole and comes back, and garbage ends."""
        tool = self.tool("end", bucket)
        ids = [one["id"] for one in tool.run("snapshots").report["snapshots"] if not one["late"]]
        tool.run("verify", "--read-data")
        unknown = [one for one in ids if one not in self.truths.of]  # its backup was killed after the commit
        for snapshot in ids:
            run = self.truths.restore(tool, snapshot) if snapshot in unknown else self.truths.check(tool, snapshot)
            if run.exit_code:
                raise RigError(f"{bucket}: {snapshot} does not come back: {run.explain()}")
        for _ in range(STILL_ROUNDS):
            time.sleep(GRACE + 1)
            plan = tool.run("prune", "--yes-really").report["plan"]
            if not any(plan[key] for key in ("delete", "condemn", "repack", "orphan_markers", "bytes_after_grace")):
                break
        else:
            raise RigError(f"{bucket}: {STILL_ROUNDS} prunes were not enough: {plan}")
        tool.run("verify", "--read-data")
        stored = self.stage.minio.list(bucket)
        if left := [key for key in stored if "/condemned/" in key]:
            raise RigError(f"{bucket}: markers are left: {left}")
        fresh = f"fresh-of-{bucket}"
        self.stage.minio.make_bucket(fresh)
        self.tool("init", fresh).run("init", "--unencrypted")
        tool.run("copy", "--all", "--to", f"s3://{fresh}/matrix")
        share = sum(stored.values()) / sum(self.stage.minio.list(fresh).values())
        print(f"   {bucket}: {len(ids)} snapshots whole and restored, {len(ids) - len(unknown)} compared; {size(sum(stored.values()))}, {share:.2f} of a fresh copy", flush=True)


def together(minutes: float, seed: int, keep: bool) -> int:
    """All of it; 1 if anything was wrong."""
    with Ground("together", keep) as ground:
        say(f"Backups, prunes, copies and restores at once for {minutes:g} min, grace {GRACE} s, window {WINDOW} s, seed {seed}")
        world = Together(ground, seed)
        world.everything(minutes)
        print(f"   {world.told()}")
        if world.errors:
            raise RigError(f"{len(world.errors)} went wrong, the first: {world.errors[0]}")
        say("Everything stands still")
        for bucket in (FIRST, SECOND):
            world.still(bucket)
        return 0
