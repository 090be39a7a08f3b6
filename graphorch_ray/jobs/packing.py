"""What travels with a job: the library, the user's code, the input, and what is asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

MODULE = "graphorch_ray_job"
"""The module that a job starts with; made for each job."""

OLDEST_RAY = "2.60"

OUTPUTS = ("output", "report", "trace")
"""Options of `run` and `resume` that name a file, which comes back from the cluster."""

_PACKAGE = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """A command line for the cluster, and its files.

    Attributes:
        arguments: the command line: `run` or `resume` and what follows.
        reads: by the name that it has in the job, the content of each file that comes along.
        options: values of options that are not those of the command line, by parameter.
        writes: by parameter, the client's file that is to be fetched when the run has ended.
        as_json: whether it asks for JSON.
    """

    arguments: tuple[str, ...]
    reads: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    writes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    as_json: bool = False


def order_of(arguments: Sequence[str], working_dir: str | None) -> Order:
    """Read a command line for the cluster as this client would, and see what files it needs.

    Raises:
        click.UsageError: it is no `run` or `resume`, or wrong.
        CommandError: its files or its graph cannot be there.
    """
    import click

    from ..cli.app import cli
    from ..cli.session import CommandError, Session
    from ..cli.states import check_folder, check_output

    given = tuple(arguments)
    if not given or given[0] not in ("run", "resume"):
        raise CommandError(
            "After -- comes what the job is to run: `run MODULE:GRAPH …` or `resume URL …`"
        )
    command = cli.get_command(click.Context(cli), given[0])
    assert command is not None
    session = Session()
    context = command.make_context(given[0], list(given[1:]), obj=session)
    if context.get_parameter_source("address") is click.core.ParameterSource.COMMANDLINE:
        raise CommandError("--address belongs before the --: the job runs on that cluster")
    parameters = context.params
    if parameters.get("hosted"):
        raise CommandError("A job has a driver of its own, on the cluster: leave --hosted out")
    if parameters.get("graph"):
        _check_graph(parameters["graph"], working_dir)
    check_output(parameters["output"])
    writes = {}
    for name in OUTPUTS:
        path = parameters[name]
        if path is not None and "://" not in path:
            check_folder(f"--{name}", path)
            writes[name] = str(path)
    options = {name: f"{name}{PurePath(path).suffix}" for name, path in writes.items()}
    source = parameters.get("source")
    reads = {}
    if source is not None and "://" not in source:
        name = f"input{'' if source == '-' else PurePath(source).suffix}"
        reads[name] = _content(source)
        options["source"] = name
    return Order(
        arguments=given, reads=reads, options=options, writes=writes, as_json=session.as_json
    )


def _content(source: str) -> bytes:
    from ..cli.session import CommandError

    try:
        return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise CommandError(f"Cannot read --input '{source}': {error.strerror}") from error


def _check_graph(reference: str, working_dir: str | None) -> None:
    """Refuse a file that the job would not find; a module may be installed on the cluster."""
    from ..cli.session import CommandError

    name = reference.partition(":")[0]
    if not (name.endswith(".py") or "/" in name):
        return
    if working_dir is None:
        raise CommandError(f"The job would not have '{name}': give --working-dir")
    if "://" not in working_dir and not Path(working_dir, name).is_file():
        raise CommandError(f"There is no '{name}' in the working directory, '{working_dir}'")


def pack(
    order: Order, job_id: str, folder: Path, *, working_dir: str | None, shipped: bool
) -> list[str]:
    """Lay out what the cluster is to get besides the user's code.

    Args:
        order: what is asked for.
        job_id: the job's name.
        folder: an empty directory.
        working_dir: where the user's code is; for messages.
        shipped: whether graphorch_ray goes along.

    Returns:
        Directories for `py_modules` of the runtime environment.
    """
    from .. import __version__

    start = folder / MODULE
    start.mkdir()
    shutil.copy(_PACKAGE / "jobs" / "boot.py", start / "__main__.py")
    (start / "__init__.py").touch()
    for name, content in order.reads.items():
        (start / name).write_bytes(content)
    job = {
        "job_id": job_id,
        "arguments": order.arguments,
        "options": order.options,
        "reads": list(order.reads),
        "working_dir": working_dir,
        "shipped": shipped,
        "client": {
            "python": platform.python_version(),
            "graphorch_ray": __version__,
            "oldest_ray": OLDEST_RAY,
        },
    }
    (start / "job.json").write_text(json.dumps(job), encoding="utf-8")
    modules = [str(start)]
    if shipped:
        copy = folder / _PACKAGE.name
        shutil.copytree(_PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        modules.append(str(copy))
    return modules


def entrypoint(python: str | None) -> str:
    """The shell command that starts a job.

    Without an interpreter's name: this client's, where the cluster has it at the same path, else
    `python3` as the cluster finds it, which is the one of its image or environment.
    """
    start = f"-m {MODULE}"
    if python is not None:
        return f"{shlex.quote(python)} {start}"
    here = shlex.quote(sys.executable)
    return f'p={here}; [ -x "$p" ] || p=python3; exec "$p" {start}'


def runtime_env(
    base: Mapping[str, Any] | None,
    working_dir: str | os.PathLike[str] | None,
    modules: Sequence[str],
    env: Mapping[str, str],
) -> dict[str, Any]:
    """The runtime environment of a job: the user's, with ours put into it.

    Raises:
        CommandError: the working directory is not there.
    """
    from ..cli.session import CommandError

    made = dict(base or {})
    if working_dir is not None:
        place = os.fspath(working_dir)
        if "://" not in place and not Path(place).is_dir():
            raise CommandError(f"--working-dir '{place}' is no directory")
        made["working_dir"] = place
    made["py_modules"] = [*made.get("py_modules", ()), *modules]
    made["env_vars"] = {**made.get("env_vars", {}), **env}
    return made
