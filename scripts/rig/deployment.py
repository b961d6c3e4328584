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


def cron_jobs() -> None:
    """The CronJobs keep the promises of the README."""
    jobs = _kubernetes("CronJob")
    assert set(jobs) == {"synapse-backup", "synapse-backup-drill", "synapse-backup-prune"}, set(jobs)
    for name, cron in jobs.items():
        _cron_job(cron["spec"], name)
    users = {name: cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["envFrom"][0] for name, cron in jobs.items()}
    pruner = users.pop("synapse-backup-prune")
    assert pruner not in users.values(), "credentials that may delete are the pruner's alone"


def _cron_job(cron: dict, name: str) -> None:
    assert cron["concurrencyPolicy"] == "Forbid"
    job = cron["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    verb = name.removeprefix("synapse-").removeprefix("backup-")
    assert container["args"] == ["--json", verb], container["args"]
    rules = job["podFailurePolicy"]["rules"]
    codes = {code for rule in rules if rule["action"] == "FailJob" for code in rule["onExitCodes"]["values"]}
    assert codes == NO_RETRY, f"not retried: {codes}, promised: {NO_RETRY}"
    assert all(rule["onExitCodes"]["containerName"] == container["name"] for rule in rules if "onExitCodes" in rule)
    assert pod["restartPolicy"] == "Never", "podFailurePolicy demands it"
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert all(mount.get("readOnly") for name, mount in mounts.items() if name != "tmp"), "only /tmp may be written to"
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert variables.get("TMPDIR") == mounts["tmp"]["mountPath"], "scratch files must go where something can be written"
    (settings,) = _kubernetes("ConfigMap").values()
    bound = int(yaml.safe_load(settings["data"]["config.yaml"])["limits"]["memory"].removesuffix("MiB"))
    limit = container["resources"]["limits"]["memory"]
    # A drill starts a PostgreSQL of its own.
    assert limit == ("1Gi" if verb == "drill" else f"{bound + HEADROOM_MIB}Mi"), "memory limit and limits.memory do not match"
    named = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert named == {settings["metadata"]["name"]}
    assert container["envFrom"][0]["secretRef"]["name"] in _kubernetes("Secret")


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
    assert "/tmp" in services["backup"]["tmpfs"], "the image's TMPDIR must be a place that can be written to"
    needed = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"}
    assert set(services["restore"]["cap_add"]) == needed, "files get their owners, and programs of PostgreSQL run as Synapse's user"


def image() -> None:
    """The images run as nobody in particular, from the toolchain that rust-toolchain.toml names."""
    text = (ROOT / "Dockerfile").read_text()
    lines = text.splitlines()
    for stage in text.split("\nFROM debian:")[1].split("\nFROM "):
        users = [line.split()[1] for line in stage.splitlines() if line.startswith("USER ")]
        assert not users or users[-1].partition(":")[0] not in ("0", "root"), stage
    assert "ENV TMPDIR=/tmp" in lines, "/var/tmp is read-only with the rest of the root file system"
    channel = (ROOT / "rust-toolchain.toml").read_text().split('channel = "')[1].split('"')[0]
    assert any(line.startswith(f"FROM rust:{channel.rpartition('.')[0]}-") for line in lines), f"the image does not use Rust {channel}"


def units() -> None:
    """Each unit has a timer, starts one command, and gives nothing away; systemd understands it (where it is installed)."""
    for service in sorted((ROOT / "deploy" / "systemd").glob("*.service")):
        lines = service.read_text().splitlines()
        assert service.with_suffix(".timer").exists(), service.name
        (start,) = (line for line in lines if line.startswith("ExecStart="))
        verb = service.stem.removeprefix("synapse-").removeprefix("backup-")
        assert start.startswith("ExecStart=/usr/local/bin/synapse-backup ") and start.split()[-1] == verb, start
        assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"} <= set(lines), service.name
        assert any(line in lines for line in ("DynamicUser=yes", "User=matrix-synapse")), f"{service.name} runs as root"
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


def _kubernetes(kind: str) -> dict[str, dict]:
    documents = (document for path in KUBERNETES for document in yaml.safe_load_all(path.read_text()))
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def main() -> int:
    """Every check, also after one has failed."""
    checks: list[Callable[[], None]] = [schemas, cron_jobs, compose, image, units]
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
