"""Command line of the rig; scripts/demo, scripts/e2e and scripts/bench call it with the Python of Synapse's venv.

    python scripts/rig demo | e2e | seaweedfs | bench | media-million | media-4g | sealed | days | nights | together | serve
"""

from __future__ import annotations

import argparse
import signal
import sys

from ground import Ground, RigError


def main() -> int:
    """Reads the arguments, runs one verb, turns its errors into one line and an exit code."""
    parser = argparse.ArgumentParser(prog="rig", description="Real servers for the demo, the end-to-end test and the benchmarks")
    verbs = parser.add_subparsers(dest="verb", required=True)
    stages = {
        "demo": "back up, destroy, restore",
        "e2e": "the end-to-end test",
        "seaweedfs": "the same promises beside another store",
        "serve": "start everything and wait",
    }
    for name, text in stages.items():
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("--messages", type=int, default=120, help="messages on the first day")
        verb.add_argument("--files", type=int, default=40, help="media on the first day")
        verb.add_argument("--keep", action="store_true", help="keep logs and data")
        verb.add_argument("--awkward", action="store_true", help="(serve) the awkward configuration")
    bench = verbs.add_parser("bench", help="first backup, second backup, restore; beside restic and kopia if RESTIC and KOPIA name them")
    bench.add_argument("--database-mib", type=int, default=128, help="size of the generated database")
    bench.add_argument("--media-mib", type=int, default=256, help="size of the generated media")
    bench.add_argument("--part", choices=("all", "database", "media"), default="all", help="what is backed up and restored")
    bench.add_argument("--rounds", type=int, default=1, help="repetitions, each in new repositories; the least figure counts")
    bench.add_argument("--keep", action="store_true", help="keep logs and data")
    for name, text in (("media-million", "a night over a million tiny media files"), ("media-4g", "20,000 media files with 4 GiB")):
        crowd = verbs.add_parser(name, help=text)
        crowd.add_argument("--files", type=int, default=1_000_000 if name == "media-million" else 20_000, help="how many files")
        crowd.add_argument("--rounds", type=int, default=2, help="repetitions; the least figure counts")
        crowd.add_argument("--keep", action="store_true", help="keep logs and data")
    sealed = verbs.add_parser("sealed", help="own CPU of a sealed first backup beside that of an unsealed one")
    sealed.add_argument("--database-mib", type=int, default=300, help="size of the generated database")
    sealed.add_argument("--media-mib", type=int, default=300, help="size of the generated media")
    sealed.add_argument("--rounds", type=int, default=4, help="repetitions of both; the least figure of each counts")
    sealed.add_argument("--keep", action="store_true", help="keep logs and data")
    days = verbs.add_parser("days", help="thirty ordinary days by size of blobs; beside restic if RESTIC names it")
    days.add_argument("--database-mib", type=int, default=200, help="size of the generated database")
    days.add_argument("--days", type=int, default=30, help="how many")
    days.add_argument("--sizes", default="32,64,128,256", help="average sizes of blobs in KiB")
    days.add_argument("--keep", action="store_true", help="keep logs and data")
    nights = verbs.add_parser("nights", help="two hundred nights of backup, forget and prune")
    nights.add_argument("--database-mib", type=int, default=24, help="size of the generated database")
    nights.add_argument("--media-mib", type=int, default=48, help="size of the generated media")
    nights.add_argument("--nights", type=int, default=200, help="how many")
    nights.add_argument("--keep", action="store_true", help="keep logs and data")
    together = verbs.add_parser("together", help="backups, prunes, copies and restores at once, some of them killed")
    together.add_argument("--minutes", type=float, default=10, help="how long")
    together.add_argument("--seed", type=int, default=1, help="of what is killed and what is restored")
    together.add_argument("--keep", action="store_true", help="keep logs and data")
    arguments = parser.parse_args()
    try:
        return run(arguments)
    except RigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended", file=sys.stderr)
        return 130


def run(arguments: argparse.Namespace) -> int:
    """One verb. Its module is imported here, since each needs other libraries."""
    if arguments.verb == "demo":
        from demo import demo

        demo(arguments.messages, arguments.files, arguments.keep)
    elif arguments.verb == "e2e":
        from e2e import e2e

        return e2e(arguments.messages, arguments.files, arguments.keep)
    elif arguments.verb == "seaweedfs":
        from seaweedfs import seaweedfs

        return seaweedfs(arguments.messages, arguments.files, arguments.keep)
    elif arguments.verb == "bench":
        from bench import bench

        bench(arguments.database_mib, arguments.media_mib, arguments.part, arguments.rounds, arguments.keep)
    elif arguments.verb == "media-million":
        from crowd import million

        return million(arguments.files, arguments.rounds, arguments.keep)
    elif arguments.verb == "media-4g":
        from crowd import few

        return few(arguments.files, (4 << 30) * arguments.files // 20_000, arguments.rounds, arguments.keep)
    elif arguments.verb == "sealed":
        from sealing import sealing

        return sealing(arguments.database_mib, arguments.media_mib, arguments.rounds, arguments.keep)
    elif arguments.verb == "days":
        from days import days

        days(arguments.database_mib, arguments.days, [int(size) for size in arguments.sizes.split(",")], arguments.keep)
    elif arguments.verb == "nights":
        from nights import nights

        return nights(arguments.database_mib, arguments.media_mib, arguments.nights, arguments.keep)
    elif arguments.verb == "together":
        from together import together

        return together(arguments.minutes, arguments.seed, arguments.keep)
    else:
        serve(arguments)
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """A playground: everything runs and is filled until Ctrl-C."""
    from awkward import awkward
    from homeserver import Homeserver, plain
    from minio import Minio
    from postgres import Postgres
    from story import Story
    from tool import settings

    with Ground("serve", arguments.keep) as ground:
        postgres, minio = Postgres(ground), Minio(ground)
        minio.make_bucket("offsite")
        installation = (awkward if arguments.awkward else plain)(ground, postgres)
        Homeserver(ground, installation).start()
        Story(installation).begin(arguments.messages, arguments.files)
        config = ground.path / "config.yaml"
        config.write_text(settings(minio, installation, "s3://offsite/matrix"))
        for key, value in {**minio.environment, **postgres.environment}.items():
            print(f"export {key}={value}")
        print(f"# Synapse: {installation.url}, database {installation.database!r}; settings for -c: {config}; Ctrl-C ends it", flush=True)
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
