"""The demo: a homeserver goes into a bucket, is lost as a whole, and comes back. Told step by step, with the figures at the end."""

from __future__ import annotations

import dataclasses
import sys
import time

from compare import lost, tree
from ground import Ground, RigError
from homeserver import Homeserver, plain
from minio import Minio
from postgres import Postgres
from story import Story, differences
from tool import Run, Tool, settings

BUCKET = "offsite"


@dataclasses.dataclass
class Table:
    """What each step cost, for the last lines of the demo."""

    rows: list[tuple[str, ...]] = dataclasses.field(default_factory=list)

    def add(self, step: str, run: Run) -> None:
        report = run.report
        figures = (f"{run.seconds:.1f}", size(report["sent_bytes"]), size(report["received_bytes"]), str(run.requests), size(run.peak_bytes))
        self.rows.append((step, *figures))

    def show(self) -> None:
        head = ("step", "seconds", "sent", "received", "requests", "memory")
        widths = [max(len(row[column]) for row in (head, *self.rows)) for column in range(len(head))]
        for row in (head, *self.rows):
            print("  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in enumerate(zip(row, widths))))


def say(text: str) -> None:
    """One step, in bold on a terminal."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def note(text: str) -> None:
    """What came of it."""
    print(f"   {text}", flush=True)


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def demo(messages: int, files: int, keep: bool) -> None:
    """The whole story; raises if anything did not come back."""
    begun = time.monotonic()
    table = Table()
    with Ground("demo", keep) as ground:
        say("A private PostgreSQL, MinIO and Synapse on loopback ports")
        postgres, minio = Postgres(ground), Minio(ground)
        minio.make_bucket(BUCKET)
        installation = plain(ground, postgres)
        synapse = Homeserver(ground, installation)
        synapse.start()
        note(f"{postgres.client('psql', '--version').strip()}, Synapse at {installation.url}, the bucket at {minio.url}")

        say("People move in: messages, encrypted devices, key backups, media")
        story = Story(installation)
        story.begin(messages, files)
        note(story.counts(story.observe()))
        synapse.settle(postgres)

        tool = Tool(ground, minio, settings(minio, installation, f"s3://{BUCKET}/matrix"))
        say("Back up, and back up again with nothing changed; Synapse keeps running")
        tool.run("init", "--unencrypted")
        table.add("first backup", _backup(tool))
        table.add("again", _backup(tool))

        say("Another day on the homeserver, and its backup")
        story.another_day(messages // 3, files // 3)
        before, keys = story.observe(), story.one_time_keys()
        note(story.counts(before))
        table.add("a day later", _backup(tool))
        for line in tool.run("snapshots").report["snapshots"]:
            note(f"{line['id'][:16]}  {line['time']}  {line['server_name']}")

        say("Verify: open and hash every byte in the bucket")
        table.add("verify", tool.run("verify", "--read-data"))

        say("Disaster: the database is dropped; configuration, signing key and media are deleted")
        synapse.stop()
        files_before = tree(installation.root, owners=True)
        installation.destroy(postgres)
        note(f"{installation.root} is gone, with {len(files_before)} files")

        say("Restore in place, into an empty database")
        postgres.create_database(installation.database, installation.role)
        table.add("restore", tool.run("restore", "latest"))
        missing = lost(files_before, tree(installation.root, owners=True), installation.loose)
        if missing:
            raise RigError("files differ after the restore:\n  " + "\n  ".join(missing[:20]))
        note(f"all {len(files_before)} files are back, with modes and owners")
        left = postgres.sql("SELECT count(*) FROM e2e_one_time_keys_json", installation.database)
        note(f"rows of e2e_one_time_keys_json: {left}")

        say("Synapse starts again: what do people see?")
        synapse.start()
        after = story.observe()
        changed = differences(before, after)
        if changed:
            raise RigError("clients see something else after the restore:\n  " + "\n  ".join(changed[:20]))
        note(f"the same as before: {story.counts(after)}")
        now = story.one_time_keys()
        if left != "0" or any(now.values()):
            raise RigError(f"one-time keys came back: {now}")
        note(f"one-time keys: {sum(keys.values())} before, {sum(now.values())} now, as it must be (clients upload new ones)")
        story.talk(10)
        note("and people go on talking")
        synapse.stop()
    print(f"\nEverything came back. {time.monotonic() - begun:.0f} s in all.\n")
    table.show()


def _backup(tool: Tool) -> Run:
    run = tool.run("backup")
    report = run.report
    note(
        f"snapshot {str(report['snapshot'])[:16]} in {run.seconds:.1f} s: read {size(report['read_bytes'])}, new {size(report['new_bytes'])}, "
        f"sent {size(report['sent_bytes'])}; media {report['media']['new']} new, {report['media']['unchanged']} unchanged"
    )
    return run
