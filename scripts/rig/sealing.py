"""What sealing costs: first backups of the same data into new repositories, unsealed and sealed by turns, in one run.

Measured is the tool's own CPU, user and system, by the kernel's count; pg_dump and the servers are not in it. The least figure of
each counts, since what disturbs a measurement only ever adds to it. More than the bound is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from bench import Bench
from demo import say, size
from ground import Ground, RigError
from measure import Usage, pipeline
from tool import Tool, settings

BOUND = 1.15  # sealed by unsealed


def sealing(database_mib: int, media_mib: int, rounds: int, keep: bool) -> int:
    """Rounds of both, and the ratio; the exit code is 1 beyond the bound."""
    with Ground("sealing", keep) as ground:
        say(f"A database of {database_mib} MiB and media of {media_mib} MiB on {os.cpu_count()} cores: first backups, unsealed and sealed")
        stage = Bench(ground, database_mib, media_mib, "all")
        identity = ground.path / "identity.txt"
        subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
        recipient = subprocess.run(["age-keygen", "-y", identity], check=True, capture_output=True, text=True).stdout.strip()
        used: dict[str, list[Usage]] = {"unsealed": [], "sealed": []}
        for number in range(1, rounds + 1):
            for name in used:
                more = f"encryption: {{recipients: [{recipient}], writer_key_file: {ground.path / 'writer.key'}}}\n" if name == "sealed" else ""
                used[name].append(_first_backup(stage, f"{name}-{number}", more))
                took = used[name][-1]
                print(f"   {number} {name:9} {took.own_cpu:6.2f} s own CPU, {took.wall:5.1f} s, {size(took.own_memory)}", flush=True)
        least = {name: min(each.own_cpu for each in all_of_it) for name, all_of_it in used.items()}
        ratio = least["sealed"] / least["unsealed"]
        print(f"   sealed / unsealed: {least['sealed']:.2f} s / {least['unsealed']:.2f} s = {ratio:.3f}, at most {BOUND}")
        return 0 if ratio <= BOUND else 1


def _first_backup(stage: Bench, bucket: str, more: str) -> Usage:
    stage.minio.make_bucket(bucket)
    tool = Tool(stage.ground, stage.minio, settings(stage.minio, stage.installation, f"s3://{bucket}/matrix", more), bucket)
    tool.run("init", *([] if more else ["--unencrypted"]))
    os.sync()  # nobody pays for what others left to be written
    words = [tool.binary, "-c", tool.config, "--json", "backup"]
    used = pipeline([words], 0, {**stage.environment, **tool.environment}, stage.ground.log(bucket))
    names = [name for name in stage.minio.list(bucket, "matrix/packs/")]
    if not names or any(name.endswith(".age") != bool(more) for name in names):
        raise RigError(f"{bucket}: these packs are not as they should be: {names[:3]}")
    shutil.rmtree(stage.minio.data / bucket)  # the disk is needed; nobody asks for it again
    return used
