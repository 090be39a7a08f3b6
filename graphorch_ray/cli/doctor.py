"""`doctor`: checks what runs need, each in a line that says what to do."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import click

from ..errors import GraphOrchestratorException
from .differences import size
from .session import ExitCode, Session, common, one_line

Level = Literal["ok", "note", "warning", "fault"]

PACKAGES = ("graphorch-ray", "ray", "pyarrow", "msgpack", "fsspec", "opentelemetry-sdk")

EXTRAS = {
    "s3fs": "checkpoints on S3: pip install 'graphorch-ray[s3]'",
    "opentelemetry-exporter-otlp": "traces by OTLP: pip install 'graphorch-ray[otlp]'",
    "aiohttp": "Ray jobs: pip install 'graphorch-ray[jobs]'",
}

LEAST_SHARED = 1 << 30
LEAST_FILES = 4096
OTLP_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        check: its name.
        level: ``ok``; ``note``, for what is there to be known; ``warning``; ``fault``.
        found: what there is.
        todo: what to do; empty where all is well.
    """

    check: str
    level: Level
    found: str
    todo: str = ""


@click.command()
@click.option("--address", metavar="HOST:PORT", envvar="RAY_ADDRESS", help="A cluster to join.")
@click.option(
    "--jobs", metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="A job server: http://HOST:8265."
)
@click.option("--checkpoint", metavar="URL", help="A place for checkpoints.")
@click.option(
    "--otlp",
    metavar="URL",
    envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
    help="An OTLP receiver, such as http://localhost:4318.",
)
@common
def doctor(
    session: Session,
    address: str | None,
    jobs: str | None,
    checkpoint: str | None,
    otlp: str | None,
) -> int:
    """Check what runs need, and say what to do.

    What is not named, by an option or by its variable, is not checked. Nothing is changed: what it
    writes to a place for checkpoints it deletes again.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _packages, _machine, _token]
    if address:
        checks.append(lambda: _cluster(address))
    else:
        checks.append(_own_ray)
    if jobs:
        checks.append(lambda: _jobs(jobs))
    if checkpoint:
        checks.append(lambda: _store(checkpoint))
    if otlp:
        checks.append(lambda: _otlp(otlp))
    findings = []
    for check in checks:
        for finding in check():
            findings.append(finding)
            if not session.as_json:
                session.show("\n".join(_lines(finding)), None)
    faults = sum(finding.level == "fault" for finding in findings)
    if session.as_json:
        session.show("", [dataclasses.asdict(finding) for finding in findings])
    elif not faults:
        session.tell("no fault found")
    else:
        session.tell(f"{faults} fault{'s' * (faults != 1)} found")
    return ExitCode.FAILED if faults else ExitCode.OK


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.level:8} {finding.check:14} {finding.found}"
    if finding.todo:
        yield f"{'':8} {'':14} -> {finding.todo}"


# --- this machine ---------------------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        yield Finding("package", "ok", f"{name} {importlib.metadata.version(name)}")
    for name, purpose in EXTRAS.items():
        try:
            yield Finding("package", "ok", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            what, _, how = purpose.partition(": ")
            yield Finding("package", "note", f"{name} is not installed", f"for {what}: {how}")


def _machine() -> Iterator[Finding]:
    yield Finding("cores", "ok", f"{os.cpu_count()} on {platform.node()}, {platform.platform()}")
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared)
        few = room.total < LEAST_SHARED
        todo = "Ray keeps large states there and will use the disk: docker run --shm-size=2g"
        found = f"{size(room.free)} of {size(room.total)} free"
        yield Finding("shared memory", "warning" if few else "ok", found, todo if few else "")
    try:
        import resource
    except ImportError:  # not on this platform
        return
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = files != resource.RLIM_INFINITY and files < LEAST_FILES
    todo = f"many workers need more: ulimit -n {min(65536, most)}"
    yield Finding("open files", "warning" if few else "ok", f"{files}", todo if few else "")


def _token() -> Iterator[Finding]:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if not is_token_auth_enabled():
        yield Finding(
            "token",
            "note",
            "token authentication is off here",
            "a cluster that wants a token: RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH",
        )
    elif AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        yield Finding("token", "ok", "token authentication is on, and there is a token")
    else:
        yield Finding(
            "token",
            "fault",
            "token authentication is on, and there is no token",
            "put the cluster's token into RAY_AUTH_TOKEN, or name its file in RAY_AUTH_TOKEN_PATH",
        )


# --- the cluster ----------------------------------------------------------------------------------


def _own_ray() -> Iterator[Finding]:
    yield Finding(
        "address",
        "note",
        "none: each program starts a Ray of its own",
        "to join a cluster: RAY_ADDRESS=host:6379, or --address",
    )


def _cluster(address: str) -> Iterator[Finding]:
    from ..runtime.on_ray.ray_cluster import check_joinable
    from ..runtime.on_ray.ray_connect import probe

    began = time.monotonic()
    try:
        cluster = probe(address)
    except GraphOrchestratorException as error:
        yield _fault("address", error)
        return
    took = time.monotonic() - began
    yield Finding(
        "address",
        "ok",
        f"Ray {cluster.ray_version}, Python {cluster.python_version} at {address} ({took:.1f} s)",
    )
    for machine in cluster.machines:
        yield Finding("machine", "ok", f"{machine.host}: {_amounts(machine.resources)}")
    try:
        check_joinable(address, cluster)
    except GraphOrchestratorException as error:
        yield _fault("joining", error)


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {size(amount) if 'memory' in name else f'{amount:g}'}"
        for name, amount in sorted(resources.items())
    )


def _jobs(url: str) -> Iterator[Finding]:
    from ..jobs.connecting import check_server, job_server

    try:
        found = check_server(job_server(url))
    except GraphOrchestratorException as error:
        yield _fault("job server", error)
        return
    ours = importlib.metadata.version("ray")
    same = found["ray_version"] == ours
    yield Finding(
        "job server",
        "ok" if same else "warning",
        f"Ray {found['ray_version']} at {job_server(url)}",
        "" if same else f"this client has Ray {ours}; install the same on both",
    )


# --- what runs write to ---------------------------------------------------------------------------


def _store(url: str) -> Iterator[Finding]:
    from ..testing import check_store

    try:
        report = check_store(url, one_driver=True, large=1 << 20, many=5)
    except GraphOrchestratorException as error:
        yield _fault("store", error)
        return
    yield Finding("store", "ok", f"{url} can be written, listed, read ({report.seconds:.1f} s)")
    if report.fenced:
        yield Finding("store", "ok", "writes can be made create-only: two drivers are kept apart")
    else:
        yield Finding(
            "store",
            "warning",
            "writes are not create-only (no conditional PUT): two drivers cannot be kept apart",
            "see to it that a run is resumed by one driver at a time",
        )


def _otlp(url: str) -> Iterator[Finding]:
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url if "://" in url else f"http://{url}")
    port = parts.port or (443 if parts.scheme == "https" else 4318)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=OTLP_SECONDS):
            pass
    except OSError as error:
        yield Finding(
            "otlp",
            "fault",
            f"nothing answers at {url} ({error})",
            "check the address, and that a collector listens (4318 for HTTP, 4317 for gRPC)",
        )
        return
    yield Finding("otlp", "ok", f"something listens at {url}")


def _fault(check: str, error: Exception) -> Finding:
    found, _, todo = one_line(str(error)).partition("). ")
    return Finding(check, "fault", f"{found})" if todo else found, todo)
