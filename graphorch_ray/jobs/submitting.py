"""Sending a run to a cluster."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ClusterConnectionError, JobFailedError
from .connecting import connect
from .handle import METADATA, JobHandle
from .packing import Order, entrypoint, order_of, pack, runtime_env

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

AGENT_SECONDS = 15.0
"""How long a head that has just started may take before it can start jobs."""


def submit(
    arguments: Sequence[str],
    *,
    address: str | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    job_id: str | None = None,
    env: Mapping[str, str] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    python: str | None = None,
    installed: bool = False,
) -> JobHandle:
    """Run a command line of `graphorch-ray` as a Ray job.

    The job has graphorch_ray (this client's, unless `installed`), the working directory and the
    input's file. What the command line names as output, report and trace are files of this
    client, which are fetched from the cluster when asked for.

    Args:
        arguments: the command line: ``["run", "flow:graph", …]`` or ``["resume", "s3://…", …]``.
        address: the cluster's job server, ``"http://host:8265"``. Default: the variable
            ``RAY_API_SERVER_ADDRESS``, else port 8265 on this machine.
        working_dir: the directory with the user's code, which becomes the job's.
        job_id: its name. Default: one is made.
        env: environment variables of the job and all of its workers.
        runtime_env: more for Ray's runtime environment, for example ``{"pip": ["scipy"]}``.
        python: the interpreter on the cluster. Default: this client's, where the cluster has it
            at the same path, else ``python3``.
        installed: use the graphorch_ray that is installed on the cluster.

    Raises:
        ClusterConnectionError: the server cannot be reached.
        JobFailedError: it refuses the job; says why.
        click.ClickException: the command line is wrong.
        ImportError: ``ray[default]`` is not installed here.

    Example:
        ```python
        job = submit(["run", "flow:graph"], address="http://10.0.0.1:8265", working_dir=".")
        print(job.result()["state"])
        ```
    """
    place = None if working_dir is None else os.fspath(working_dir)
    order = order_of(arguments, place)
    return send(
        order,
        address=address,
        working_dir=place,
        job_id=job_id,
        env=env or {},
        base=runtime_env,
        python=python,
        installed=installed,
    )


def send(
    order: Order,
    *,
    address: str | None,
    working_dir: str | None,
    job_id: str | None,
    env: Mapping[str, str],
    base: Mapping[str, Any] | None,
    python: str | None,
    installed: bool,
) -> JobHandle:
    """Send what `order_of` read; arguments and errors are those of `submit`."""
    client = connect(address)
    name = job_id or f"graphorch-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="graphorch-job-") as folder:
        modules = pack(order, name, Path(folder), working_dir=working_dir, shipped=not installed)
        _submitted(
            client,
            entrypoint=entrypoint(python),
            submission_id=name,
            runtime_env=runtime_env(base, working_dir, modules, env),
            metadata={METADATA: json.dumps({"writes": dict(order.writes)})},
        )
    return JobHandle(client, name, order.writes)


def _submitted(client: JobSubmissionClient, **job: Any) -> None:
    """Submit, and wait for a head that has only just started.

    Raises:
        ClusterConnectionError: the connection broke.
        JobFailedError: it was refused; says why.
    """
    address: str = client.get_address()
    end = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            client.submit_job(**job)
            return
        except OSError as error:
            if time.monotonic() < end:  # a head that comes up drops connections, too
                time.sleep(0.5)
                continue
            raise ClusterConnectionError(address, f"the connection broke ({error})") from error
        except (RuntimeError, ValueError) as error:
            text = str(error)
            if "No available agent" in text and time.monotonic() < end:
                time.sleep(0.5)
                continue
            name = job["submission_id"]
            raise JobFailedError(name, "REFUSED", _refusal(text)) from error


def _refusal(text: str) -> str:
    if "already exists" in text or "already been used" in text:
        return "there is a job of that name already: attach to it, or give another name"
    if "No available agent" in text:
        return (
            "the head cannot start jobs, for its dashboard agent does not run: ray[default] is not "
            "installed there, or the agent's port (52365 by default) is taken"
        )
    shown = re.sub(r"\s+", " ", text.strip().splitlines()[-1] if text.strip() else text)
    return shown
