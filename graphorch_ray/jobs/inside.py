"""The side of a job that runs on the cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEPOSIT = "graphorch_jobs"
"""The directory, in the logs of the cluster's session, where what a job has made waits."""

RESULT = "result.json"
"""What the command printed, in a deposit."""


def deposit_of(job_id: str) -> str:
    """Where the files of a job are, seen from the session's logs."""
    return f"{DEPOSIT}/{job_id}"


def run(job: Mapping[str, Any], here: str) -> int:
    """Run a job's command line, and leave what it makes where the client can fetch it.

    Args:
        job: what `packing.pack` wrote.
        here: the directory with the files that came along.

    Returns:
        The exit code.
    """
    import click

    from ..cli.app import cli, guarded
    from ..cli.session import CommandError, ExitCode, Session
    from ..cli.targets import NoModuleError
    from ..errors import ClusterConnectionError

    name, *arguments = job["arguments"]
    session = Session(as_json=True, quiet=True)
    try:
        deposit = _logs() / deposit_of(job["job_id"])
        deposit.mkdir(parents=True, exist_ok=True)
    except (ClusterConnectionError, OSError) as error:
        session.take_output()
        return session.fail(error, ExitCode.CLUSTER)

    def command() -> Any:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        context = found.make_context(name, arguments, obj=session)
        for option, file in job["options"].items():
            folder = Path(here) if file in job["reads"] else deposit
            context.params[option] = str(folder / file)
        context.params["address"] = None  # the job's own cluster, which Ray names
        if context.params["progress"] is None:
            context.params["progress"] = True
        try:
            with context:
                return found.invoke(context)
        except NoModuleError as error:
            raise CommandError(
                f"{error.message}. A job has what --working-dir brings (this one: "
                f"{job['working_dir'] or 'nothing'}), and what is installed on the cluster"
            ) from error

    with (deposit / RESULT).open("w", encoding="utf-8") as out:
        sys.stdout, stdout = out, sys.stdout
        try:
            return guarded(session, command)
        finally:
            # What is still to come from Ray is for the log.
            session.give_output_back()
            sys.stdout = stdout


def _logs() -> Path:
    """The directory of the logs of this machine's Ray, which its dashboard serves."""
    import ray

    from ..cli.running import connect

    connect()
    node: Any = ray._private.worker._global_node
    return Path(node.get_logs_dir_path())
