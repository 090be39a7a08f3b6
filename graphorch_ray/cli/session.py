"""What all commands share: how they print, how they fail, and with which exit code."""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TextIO, TypeVar

import click

from ..errors import (
    CheckpointError,
    ClusterConnectionError,
    GraphExecutionError,
    GraphOrchestratorException,
    JobFailedError,
    ResourceRequestError,
    RunExistsError,
    RunNotFoundError,
)

F = TypeVar("F", bound=Callable[..., Any])

PROGRAM = "graphorch-ray"

_OPTIONS = ("allow_graph_change", "allow_pickle")
"""Arguments that the library's errors advise, and that are options here."""


class ExitCode(IntEnum):
    """What the command's exit code says."""

    OK = 0
    FAILED = 1
    """The run failed (a node, a time-out, the supersteps), or `doctor` found a fault."""
    USAGE = 2
    """Something was asked for wrongly: an option, an input, a graph that is not there."""
    CLUSTER = 3
    """The cluster cannot be reached, refuses the token, or cannot give what is asked for."""
    CHECKPOINT = 4
    """A checkpoint could not be found, read, trusted or written."""
    INTERNAL = 70
    """An error that this program did not expect."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class CommandError(click.ClickException):
    """An error in what was asked for, told in one line."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Terminated(KeyboardInterrupt):
    """The process was told to end (SIGTERM): what runs is stopped as at Ctrl-C."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code that stands for an error of the library."""
    if isinstance(error, ClusterConnectionError | JobFailedError | ResourceRequestError):
        return ExitCode.CLUSTER
    if isinstance(error, CheckpointError | FileNotFoundError):
        return ExitCode.CHECKPOINT
    if isinstance(error, GraphExecutionError):
        # A run that ends because its checkpoints cannot be written says so as its cause.
        return _of_cause(error.__cause__)
    if isinstance(error, RunExistsError | RunNotFoundError):
        return ExitCode.USAGE
    if isinstance(error, GraphOrchestratorException | TimeoutError):
        return ExitCode.FAILED
    if isinstance(error, ValueError | TypeError | OSError):
        return ExitCode.USAGE
    return ExitCode.INTERNAL


def _of_cause(cause: BaseException | None) -> ExitCode:
    return ExitCode.CHECKPOINT if isinstance(cause, CheckpointError) else ExitCode.FAILED


@dataclass
class Session:
    """One call of the command.

    Attributes:
        as_json: print one JSON document, for scripts.
        verbose: show the traceback of an error.
        quiet: leave out the line about a run that succeeded; somebody else will tell.
    """

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False
    _out: TextIO | None = None

    @property
    def out(self) -> TextIO:
        """Where the result goes."""
        return self._out or sys.stdout

    def take_output(self) -> None:
        """Keep standard output for the result: what user code and nodes print goes elsewhere.

        Ray brings what nodes print with a delay, so that this lasts until `give_output_back`.
        """
        if self._out is None:
            self._out, sys.stdout = sys.stdout, sys.stderr

    def give_output_back(self) -> None:
        """Undo `take_output`."""
        if self._out is not None:
            self._out, sys.stdout = None, self._out

    def show(self, text: str, data: Any) -> None:
        """Print a command's result: text for people, or data for scripts."""
        print(json.dumps(data, default=str) if self.as_json else text, file=self.out, flush=True)

    def tell(self, text: str) -> None:
        """Say something beside the result, on the error stream."""
        sys.stderr.write(f"{PROGRAM}: {text}\n")
        sys.stderr.flush()

    def fail(self, error: BaseException, code: int, **facts: Any) -> int:
        """Report an error: one line, and the traceback where it is asked for."""
        if self.verbose:
            traceback.print_exception(error)
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        if code == ExitCode.INTERNAL:
            message = (
                f"{type(error).__name__}: {message} (an unexpected error; --verbose shows more)"
            )
        for name in _OPTIONS:
            message = message.replace(f"{name}=True", f"--{name.replace('_', '-')}")
        line = one_line(message or type(error).__name__)
        if self.as_json:
            known = {
                name: value
                for name in ("node_id", "run_id", "superstep", "attempt")
                if (value := getattr(error, name, None)) is not None
            }
            about = {"type": type(error).__name__, "message": message, **known, **facts}
            self.show("", {"error": about, "exit_code": code})
        self.tell(f"error: {line}")
        return code


def one_line(text: str) -> str:
    """The first line of a text, with a mark where there was more."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if len(lines) <= 1:
        return "".join(lines)
    return f"{lines[0]} […]"


def flags(function: F) -> F:
    """Give a command the options that all have."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
            if value:
                setattr(context.find_object(Session), name, True)

        return callback

    for option, attribute, text in (
        ("--verbose", "verbose", "Show the traceback of an error."),
        ("--json", "as_json", "Print one JSON document on standard output, for scripts."),
    ):
        function = click.option(
            option,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=keep(attribute),
            help=text,
        )(function)
    return function


def common(function: F) -> F:
    """Give a command the options that all have, and the `Session` as its first argument."""

    @flags
    @click.pass_obj
    @functools.wraps(function)
    def command(session: Session, *args: Any, **kwargs: Any) -> Any:
        session.take_output()
        return function(session, *args, **kwargs)

    return command  # type: ignore[return-value]
