"""Checks of the files people deploy with: schemas (offline, from the packages of scripts/setup) and what schemas cannot say.

Run with the Python of the tools venv. Prints one line per check; the exit code is 1 if one failed.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
NO_RETRY = {2, 3, 10, 12}
HEADROOM_MIB = 128  # the program itself, pg_dump, page tables


def command(*arguments: str | pathlib.Path) -> None:
    """Runs a checker; its output is the message of the failure."""
    beside = pathlib.Path(sys.executable).parent
    done = subprocess.run([beside / arguments[0], *arguments[1:]], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError((done.stdout + done.stderr).strip())


def schemas() -> None:
    """Every file fits the schema of its kind."""
    command("check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml")
    command("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *sorted((ROOT / ".github" / "workflows").glob("*.yml")))
    command("kubernetes-validate", "--strict", "--quiet", *KUBERNETES)


def cron_job() -> None:
    """The CronJob keeps the promises of the README."""
    cron = _kubernetes("CronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    job = cron["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    rules = job["podFailurePolicy"]["rules"]
    codes = {code for rule in rules if rule["action"] == "FailJob" for code in rule["onExitCodes"]["values"]}
    assert codes == NO_RETRY, f"not retried: {codes}, promised: {NO_RETRY}"
    assert all(rule["onExitCodes"]["containerName"] == container["name"] for rule in rules if "onExitCodes" in rule)
    assert pod["restartPolicy"] == "Never", "podFailurePolicy demands it"
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert all(mount.get("readOnly") for name, mount in mounts.items() if name != "tmp"), "only /tmp may be written to"
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    settings = yaml.safe_load(_kubernetes("ConfigMap")["data"]["config.yaml"])
    bound = int(settings["limits"]["memory"].removesuffix("MiB"))
    assert container["resources"]["limits"]["memory"] == f"{bound + HEADROOM_MIB}Mi", "memory limit and limits.memory do not match"
    named = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert named == {_kubernetes("ConfigMap")["metadata"]["name"]}
    assert container["envFrom"][0]["secretRef"]["name"] == _kubernetes("Secret")["metadata"]["name"]


def compose() -> None:
    """What services of the compose file name exists in it, and ports are open on the loopback only."""
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = file["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name} listens on every address"
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            assert source in file["volumes"], f"{name}: {source}"
    assert yaml.safe_load(file["configs"]["settings"]["content"])["repository"].startswith("s3://")
    assert services["backup"]["volumes"][0]["read_only"], "the tool must not write to Synapse's volume"


def image() -> None:
    """The image runs as nobody in particular, from the toolchain that rust-toolchain.toml names."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    user = [line.split()[1] for line in lines if line.startswith("USER ")][-1]
    assert user.partition(":")[0] not in ("0", "root"), user
    channel = (ROOT / "rust-toolchain.toml").read_text().split('channel = "')[1].split('"')[0]
    assert any(line.startswith(f"FROM rust:{channel.rpartition('.')[0]}-") for line in lines), f"the image does not use Rust {channel}"


def units() -> None:
    """systemd understands the units (where it is installed)."""
    if not shutil.which("systemd-analyze"):
        print("note    no systemd-analyze on this machine: the units were only read")
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in (ROOT / "deploy" / "systemd").iterdir():
            # The program is not installed where the unit expects it.
            text = path.read_text().replace("/usr/local/bin/synapse-backup", "/bin/true")
            pathlib.Path(folder, path.name).write_text(text)
        names = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True)
        ours = [line for line in (done.stdout + done.stderr).splitlines() if "synapse-backup" in line]
        assert not ours, "\n".join(ours)


def _kubernetes(kind: str) -> dict:
    (found,) = (document for path in KUBERNETES for document in yaml.safe_load_all(path.read_text()) if document["kind"] == kind)
    return found


def main() -> int:
    """Every check, also after one has failed."""
    checks: list[Callable[[], None]] = [schemas, cron_job, compose, image, units]
    failed = 0
    for check in checks:
        try:
            check()
            print(f"ok      {(check.__doc__ or '').strip()}")
        except (AssertionError, KeyError, ValueError, OSError, yaml.YAMLError) as error:
            failed += 1
            print(f"FAILED  {(check.__doc__ or '').strip()}\n        {error!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
