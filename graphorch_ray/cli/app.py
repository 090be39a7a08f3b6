"""The group of commands, and the door through which they are called."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import GraphWarning
from .session import PROGRAM, CommandError, ExitCode, Session, Terminated, exit_code_of, one_line

COMMANDS = {
    "run": ("running", "Run a graph."),
    "resume": ("running", "Go on with a run from its newest checkpoint."),
    "checkpoints": ("checkpoints", "List, describe or compare the checkpoints of a run."),
    "draw": ("pictures", "Draw a graph, as Mermaid or SVG."),
    "report": ("pictures", "Make the report of a run from its trace."),
    "submit": ("submitting", "Run a command of this program as a Ray job."),
    "attach": ("submitting", "Follow a job that was submitted before."),
    "runs": ("hosted", "List, show, hold or stop the hosted runs of a cluster."),
    "doctor": ("doctor", "Check what runs need, and say what to do."),
    "completion": ("completion", "Print the shell's completion script."),
}
"""Each command, the module that has it, and what it is for."""


class Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f".{module}", __package__), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="graphorch-ray", prog_name=PROGRAM)
def cli() -> None:
    """Run graphs of Python functions on Ray, here or on a cluster.

    A graph is named MODULE:NAME or FILE.py:NAME. Results go to standard output, everything else
    to standard error. Exit codes: 0 done, 1 the run failed, 2 wrong use, 3 the cluster, 4 the
    checkpoints, 130 Ctrl-C.
    """


def call(arguments: Sequence[str] | None = None, session: Session | None = None) -> int:
    """Run a command line and return its exit code."""
    session = session or Session()
    try:
        return guarded(
            session,
            lambda: cli.main(
                None if arguments is None else list(arguments),
                prog_name=PROGRAM,
                standalone_mode=False,
                obj=session,
            ),
        )
    finally:
        session.give_output_back()


def guarded(session: Session, command: Callable[[], Any]) -> int:
    """Run a command, report its error if it has one, and return its exit code."""
    try:
        with warnings.catch_warnings():
            _say_warnings_shortly(session)
            code = command()
        return code if isinstance(code, int) else ExitCode.OK
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else PROGRAM
        message = f"{error.format_message().rstrip('.')}. See `{path} --help`."
        return session.fail(click.ClickException(message), ExitCode.USAGE)
    except click.ClickException as error:
        code = error.code if isinstance(error, CommandError) else ExitCode.USAGE
        return session.fail(error, code)
    except Terminated as error:
        return session.fail(error, ExitCode.TERMINATED)
    except (KeyboardInterrupt, click.Abort) as error:
        told = error if str(error) else KeyboardInterrupt("interrupted")
        return session.fail(told, ExitCode.INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has seen enough
        return ExitCode.FAILED
    except Exception as error:
        return session.fail(error, exit_code_of(error))


def main() -> None:
    """The entry point of the script: run this process's command line, and end with its code."""
    session = Session()
    code = guarded(session, lambda: cli.main(prog_name=PROGRAM, standalone_mode=False, obj=session))
    sys.exit(int(code))


def _say_warnings_shortly(session: Session) -> None:
    """Print the library's warnings as one line each, without the place in its code."""
    usual = warnings.showwarning

    def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        if issubclass(category, GraphWarning):
            session.tell(f"warning: {one_line(str(message))}")
        else:
            usual(message, category, *rest, **more)

    warnings.showwarning = show
