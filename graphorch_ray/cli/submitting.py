"""`submit` and `attach`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import JobFailedError
from .running import present
from .session import PROGRAM, CommandError, ExitCode, Session, common

if TYPE_CHECKING:
    from ..jobs import JobHandle

at = click.option(
    "--address",
    metavar="URL",
    help="The cluster's job server, http://HOST:8265. Default: RAY_API_SERVER_ADDRESS, else port "
    "8265 on this machine.",
)


@click.command(context_settings={"ignore_unknown_options": False})
@at
@click.option(
    "--working-dir",
    metavar="DIR|URL",
    help="The user's code; the job runs in a copy of it. Default: none.",
)
@click.option("--job-id", metavar="NAME", help="The job's name. Default: one is made.")
@click.option(
    "--env",
    "variables",
    metavar="NAME[=VALUE]",
    multiple=True,
    help="A variable of the job and its workers; without a value, as it is here. Repeatable.",
)
@click.option("--pip", "packages", metavar="PACKAGE", multiple=True, help="Install it. Repeatable.")
@click.option(
    "--runtime-env",
    "file",
    metavar="FILE",
    help="More for Ray's runtime environment; YAML or JSON.",
)
@click.option("--python", metavar="PATH", help="The interpreter on the cluster.")
@click.option(
    "--installed", is_flag=True, help="Use the graphorch_ray that is installed on the cluster."
)
@click.option("--detach", is_flag=True, help="Do not wait for it: print its name, and end.")
@click.argument("arguments", metavar="-- run|resume …", nargs=-1, type=click.UNPROCESSED)
@common
def submit(
    session: Session,
    address: str | None,
    working_dir: str | None,
    job_id: str | None,
    variables: tuple[str, ...],
    packages: tuple[str, ...],
    file: str | None,
    python: str | None,
    installed: bool,
    detach: bool,
    arguments: tuple[str, ...],
) -> int:
    """Run a command of this program as a Ray job.

    What follows -- is `run …` or `resume …`, as it would be typed here. The input's file, this
    library and the working directory go to the cluster; result, report and trace come back.
    """
    from ..jobs.packing import order_of
    from ..jobs.submitting import send

    order = order_of(arguments, working_dir)
    session.as_json = session.as_json or order.as_json
    base = _environment(file)
    if packages:
        base["pip"] = [*base.get("pip", ()), *packages]
    job = send(
        order,
        address=address,
        working_dir=working_dir,
        job_id=job_id,
        env=dict(_variable(text) for text in variables),
        base=base,
        python=python,
        installed=installed,
    )
    again = f"{PROGRAM} attach {job.job_id} --address {job.address}"
    if detach:
        session.tell(f"it runs on its own; see to it with `{again}`")
        session.show(job.job_id, {"job_id": job.job_id, "address": job.address})
        return ExitCode.OK
    session.tell(f"submitted job {job.job_id} (`{again}` finds it again)")
    return _see_through(session, job)


@click.command()
@click.argument("job_id", metavar="JOB")
@at
@click.option("--output", metavar="FILE", help="Where to fetch the final state to.")
@click.option("--report", metavar="FILE", help="Where to fetch the report to.")
@click.option("--stop", is_flag=True, help="Stop it.")
@common
def attach(
    session: Session,
    job_id: str,
    address: str | None,
    output: str | None,
    report: str | None,
    stop: bool,
) -> int:
    """Follow a job that was submitted before, and fetch what it made.

    Files go where `submit` was told to put them, unless this says otherwise.
    """
    from ..jobs import attach as find

    try:
        job = find(job_id, address=address)
    except LookupError as error:
        raise CommandError(str(error.args[0]), ExitCode.CLUSTER) from error
    for option, path in (("output", output), ("report", report)):
        if path is not None:
            if option not in job.writes:
                raise CommandError(f"Job '{job_id}' was submitted without --{option}")
            job.writes[option] = path
    if stop:
        stopped = job.stop()
        session.show(
            f"stopping job {job_id}" if stopped else f"job {job_id} had ended",
            {"job_id": job_id, "was_running": stopped},
        )
        return ExitCode.OK
    return _see_through(session, job)


def _see_through(session: Session, job: JobHandle) -> int:
    """Follow a job to its end, and give its result and its exit code."""
    try:
        _follow(job)
    except KeyboardInterrupt:
        if _asked_to_stop(job):
            job.stop()
            session.tell(f"stopping job {job.job_id}")
            job.wait()
        else:
            session.tell(
                f"job {job.job_id} goes on without this client; "
                f"`{PROGRAM} attach {job.job_id} --address {job.address}` finds it again"
            )
        raise
    return _ended(session, job)


def _follow(job: JobHandle) -> None:
    """Show what a job writes, without the line in which Ray repeats its command."""
    begun = ""
    for text in job.follow():
        *lines, begun = (begun + text).split("\n")
        shown = [line for line in lines if not line.startswith("Running entrypoint for job ")]
        sys.stderr.writelines(f"{line}\n" for line in shown)
        sys.stderr.flush()
    sys.stderr.write(begun)


def _asked_to_stop(job: JobHandle) -> bool:
    """Ask what Ctrl-C is to mean; where nobody can answer, it means this client alone."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    try:
        sys.stderr.write(f"\n{PROGRAM}: stop job {job.job_id} on the cluster, too? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        return False


def _ended(session: Session, job: JobHandle) -> int:
    info = job.details()
    document = job.document()
    fetched = {}
    for option in job.writes:
        try:
            fetched[option] = job.fetch(option)
        except FileNotFoundError as error:
            session.tell(f"warning: {error}")
    code: int | None = info.driver_exit_code
    if code not in _CODES or (document is None and code == ExitCode.OK):
        return _ended_oddly(session, job, info)
    if document is None or "error" in document:  # its log has told why
        if session.as_json:
            told = document or {"error": {"message": _last_error(job)}, "exit_code": code}
            session.show("", {**told, "job_id": job.job_id})
        return int(code)
    present(session, {**document, **fetched, "job_id": job.job_id})
    return int(code)


_CODES = frozenset(int(code) for code in ExitCode)


def _ended_oddly(session: Session, job: JobHandle, info: Any) -> int:
    """A job that was stopped or killed, that never began, or that is none of ours."""
    status, code = info.status.value, info.driver_exit_code
    if code == ExitCode.OK:
        session.tell("warning: it has left no result; was it submitted by `graphorch-ray submit`?")
        session.show(f"job {job.job_id}: {status}", {"job_id": job.job_id, "status": status})
        return ExitCode.OK
    told = str(info.message or "it ended").strip().splitlines()[0]
    if code is not None:
        told = f"its command ended with exit code {code}, and left no result"
    stopped = status == "STOPPED"
    error = JobFailedError(job.job_id, status, told, code)
    return session.fail(error, ExitCode.TERMINATED if stopped else ExitCode.CLUSTER)


def _last_error(job: JobHandle) -> str:
    errors = [line for line in job.logs().splitlines() if " error: " in line]
    return errors[-1].partition(" error: ")[2] if errors else "it left no result"


def _variable(text: str) -> tuple[str, str]:
    name, given, value = text.partition("=")
    if given:
        return name, value
    if name not in os.environ:
        raise CommandError(f"--env {name}: there is no such variable here; write {name}=VALUE")
    return name, os.environ[name]


def _environment(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    import yaml  # comes with Ray

    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise CommandError(f"Cannot read --runtime-env '{file}': {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"--runtime-env '{file}' must hold a mapping, as {json.dumps({})}")
    return found
