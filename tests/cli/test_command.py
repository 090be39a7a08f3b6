"""The command as a whole: its help, completion, options that all have, and what imports it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from graphorch_ray.cli.app import COMMANDS

from .conftest import Cli

ROOT = Path(__file__).parents[2]


def test_the_library_does_not_import_the_command() -> None:
    code = (
        "import sys, graphorch_ray; "
        "print([m for m in ('click', 'graphorch_ray.cli', 'graphorch_ray.jobs') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_entry_point_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, name = project["scripts"]["graphorch-ray"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_help_lists_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for name, (_, text) in COMMANDS.items():
        assert f"  {name}" in done.out
        assert text in done.out


RUNS = ["list", "show", "pause", "resume", "cancel", "result"]


@pytest.mark.parametrize(
    "name", [*([name] for name in COMMANDS), *(["runs", name] for name in RUNS)], ids=" ".join
)
def test_every_command_has_help_and_the_common_options(cli: Cli, name: list[str]) -> None:
    done = cli(*name, "--help")
    assert done.code == 0
    assert "--json" in done.out
    assert "--verbose" in done.out


def test_version(cli: Cli) -> None:
    import graphorch_ray

    assert cli("--version").out == f"graphorch-ray, version {graphorch_ray.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["fly"], "No such command 'fly'. See `graphorch-ray --help`."),
        (["run"], "Missing argument 'MODULE:GRAPH'. See `graphorch-ray run --help`."),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (["submit"], "After -- comes what the job is to run"),
        (["submit", "--", "draw", "flow:graph"], "After -- comes what the job is to run"),
        (["run", "flow:graph", "--hosted", "x"], "--hosted needs a cluster that stays"),
        (["run", "flow:graph", "--hosted", "x", "--report", "r.html"], "--report needs somebody"),
        (["submit", "--", "run"], "Missing argument 'MODULE:GRAPH'"),
        (["submit", "--", "run", "flow.py:graph"], "The job would not have 'flow.py'"),
        (["submit", "--working-dir", ".", "--", "run", "no.py:g"], "There is no 'no.py' in"),
        (["submit", "--", "run", "f:g", "--address", "x:1"], "--address belongs before the --"),
        (["submit", "--", "run", "f:g", "--hosted", "x"], "leave --hosted out"),
        (["submit", "--env", "NOT_SET", "--", "run", "f:g"], "--env NOT_SET: there is no such"),
        (["submit", "--", "run", "f:g", "--input", "no.json"], "Cannot read --input 'no.json'"),
        (["submit", "--runtime-env", "flow.py", "--", "run", "f:g"], "--runtime-env 'flow.py'"),
    ],
)
def test_wrong_command_lines_are_one_line(cli: Cli, arguments: list[str], text: str) -> None:
    done = cli(*arguments)
    assert text in done.error
    assert done.code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(cli: Cli, shell: str) -> None:
    assert "_GRAPHORCH_RAY_COMPLETE" in cli("completion", shell).out


def test_completion_knows_the_commands(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from graphorch_ray.cli import main; main()"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_GRAPHORCH_RAY_COMPLETE": "bash_complete",
            "COMP_WORDS": "graphorch-ray che",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout == "plain,checkpoints\n"
