"""docs/command-line.md is true: its commands run, and print what it says, in shape."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from opentelemetry import environment_variables as of_the_api
from opentelemetry.sdk import environment_variables as of_the_sdk

from graphorch_ray.cli.app import COMMANDS
from graphorch_ray.cli.app import cli as group
from graphorch_ray.cli.session import ExitCode, Session
from tests.documented import (
    BLOCK,
    FORMS,
    HERE,
    NOT_RUN,
    ON_A_CLUSTER,
    PAGES,
    ROOT,
    commands,
    consoles,
    exports,
    shape,
)

from .conftest import Cli

COMMAND_LINE = ROOT / "docs" / "command-line.md"
PAGE = COMMAND_LINE.read_text("utf-8")


def test_every_command_prints_what_the_page_says(cli: Cli, folder: Path) -> None:
    programs = [code for kind, code in BLOCK.findall(PAGE) if kind == "python"]
    (folder / "flow.py").write_text(programs[0], encoding="utf-8")
    ours = 0
    for command, said in (step for block in consoles(COMMAND_LINE) for step in block):
        words = shlex.split(command)
        if words[0] == "cat":
            printed = (folder / words[1]).read_text()
        elif ">" in words:
            (folder / words[-1]).write_text(words[1])
            continue
        else:
            stdin, _, rest = command.rpartition(" | ")
            text = shlex.split(stdin)[1] if stdin else ""
            program, *arguments = shlex.split(rest)
            assert program == "graphorch-ray"
            done = cli(*arguments, stdin=text)
            printed = done.out + done.err
            ours += 1
        assert re.fullmatch(shape(said), printed.strip()), f"{command}\n{printed}"
    assert ours > 8


def test_a_shape_tells_right_from_wrong() -> None:
    assert re.fullmatch(shape("took 0.3 s, …, ok"), "took 12.05 s, and so on, ok")
    assert not re.fullmatch(shape("took 0.3 s"), "took a while")


def test_the_commands_of_the_readme_run(cli: Cli, folder: Path) -> None:
    (folder / "state.json").write_text('["Ada"]')
    for line in [line for line in commands(ROOT / "README.md") if line in HERE]:
        done = cli(*shlex.split(line)[1:])
        assert done.code == 0, done.err
        assert json.loads(done.out)["messages"] == ["Hello, Ada"]
    assert (folder / "run.html").exists()


def test_every_command_in_the_documents_is_run_or_it_is_said_why_not() -> None:
    found = {line for page in PAGES for line in commands(page)}
    known = HERE | ON_A_CLUSTER | FORMS | set(NOT_RUN)
    assert (sorted(found - known), sorted(known - found)) == ([], [])


@pytest.mark.parametrize("line", sorted(HERE | ON_A_CLUSTER))
def test_every_command_line_in_the_documents_is_legal(line: str, folder: Path) -> None:
    _, name, *arguments = shlex.split(line)
    command = group.get_command(click.Context(group), name)
    assert command is not None, line
    if arguments:
        command.make_context(name, arguments, obj=Session())


@pytest.mark.parametrize("line", sorted(NOT_RUN))
def test_what_is_not_run_has_the_right_form(line: str) -> None:
    program, *arguments = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if program == "make":
        done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif program == "pip":
        for extra in re.findall(r"\[(\w+)\]", line):
            assert extra in extras["optional-dependencies"]
        assert arguments[1].startswith((".", extras["name"]))
    elif program == "python" and arguments[0] == "-m":
        path = ROOT / arguments[1].replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    elif program == "ray":
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ray")), arguments[0], "--help"],
            capture_output=True,
            text=True,
        )
        assert all(option in done.stdout for option in arguments if option.startswith("--"))
        assert done.returncode == 0
    else:
        assert program in ("docker", "kubectl", "ssh") or arguments == ["my_graph.py"]


def test_every_variable_that_is_to_be_set_is_one_of_opentelemetrys() -> None:
    names = {name for page in PAGES for name in exports(page)}
    assert len(names) > 4
    known = {*vars(of_the_api), *vars(of_the_sdk)}
    assert [name for name in sorted(names) if name not in known] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    for parameter in command.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--"):
                assert f"`{option}" in PAGE or f" {option}" in PAGE, option


def test_every_command_and_exit_code_is_described() -> None:
    for name in COMMANDS:
        assert f"graphorch-ray {name}" in PAGE, name
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)}
    assert codes == {int(code) for code in ExitCode}
