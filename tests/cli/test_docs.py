"""docs/command-line.md is true: its commands run, and print what it says, in shape."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from graphorch_ray.cli.app import COMMANDS
from graphorch_ray.cli.app import cli as group
from graphorch_ray.cli.session import ExitCode, Session

from .conftest import Cli

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "command-line.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def shape(text: str) -> str:
    """A pattern for what is printed: numbers stand for numbers, … for anything."""
    pattern = re.escape(text.strip())
    pattern = re.sub(r"(?<![\w/])\d[\d:.\\-]*\b", r"[\\d:.-]+", pattern)
    return re.sub(r"\s+|(\\ )+|(\\\n)+", r"\\s+", pattern).replace("…", r"(.|\n)*")


def steps() -> list[tuple[str, str]]:
    """Each command of the page, and what it is said to print."""
    found = []
    for kind, block in BLOCK.findall(PAGE):
        if kind == "console":
            for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, printed = step.partition("\n")
                found.append((command, printed))
    return found


def test_every_command_prints_what_the_page_says(cli: Cli, folder: Path) -> None:
    programs = [code for kind, code in BLOCK.findall(PAGE) if kind == "python"]
    (folder / "flow.py").write_text(programs[0], encoding="utf-8")
    ours = 0
    for command, said in steps():
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


PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def command_lines(page: Path) -> list[str]:
    """The command lines in a page's shell blocks and in its text."""
    text = page.read_text("utf-8")
    shell = "\n".join(block for kind, block in BLOCK.findall(text) if kind == "sh")
    lines = shell.replace("\\\n", " ").splitlines() + re.findall(r"`([^`\n]+)`", text)
    return [line for line in lines if line.startswith("graphorch-ray ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_in_the_documents_is_legal(page: Path, folder: Path) -> None:
    for line in command_lines(page):
        if "…" in line or "[" in line:
            continue  # a form, not a command
        _, name, *arguments = shlex.split(line, comments=True)
        command = group.get_command(click.Context(group), name)
        assert command is not None, line
        if arguments:
            command.make_context(name, arguments, obj=Session())


def test_command_lines_are_found_in_the_documents() -> None:
    assert sum(len(command_lines(page)) for page in PAGES) > 5


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
