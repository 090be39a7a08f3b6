"""Arrows between the rooms of the package point one way, and no module grows too long.

The rooms and their arrows are drawn in docs/architecture.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "graphorch_ray"
ROOT = Path(__file__).parent.parent / PACKAGE
MAX_LINES = 520  # about 500: a module that is longer says two things

# What anyone may import. These import no room.
SHARED = frozenset({"clock", "errors", "failpoints", "imported", "policies", "state"})
# What a room may import besides itself and SHARED.
ROOMS: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "engine": frozenset({"model"}),
    "runtime": frozenset({"model"}),
    "checkpoint": frozenset({"model"}),
    "telemetry": frozenset({"model"}),
}
# The modules that put the rooms together.
JOINERS = frozenset(
    {
        *("__init__", "__main__", "checkpointing", "cli", "executor", "jobs", "many", "restoring"),
        *("run", "runs", "testing", "watching"),
    }
)

# What a room may not take from elsewhere.
FOREIGN: dict[str, frozenset[str]] = {
    "model": frozenset({"ray"}),
    "engine": frozenset(
        {
            *("asyncio", "concurrent", "datetime", "fsspec", "httpx", "multiprocessing"),
            *("ray", "socket", "subprocess", "threading", "time"),
        }
    ),
}
# An event loop of one's own, in any spelling.
LOOP_CALLS = frozenset(
    {"Runner", "get_event_loop", "new_event_loop", "run_forever", "run_until_complete"}
)


def modules(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def room_of(path: Path, root: Path) -> str:
    """Return the room, or the name of a module that lies beside the rooms."""
    return path.relative_to(root).with_suffix("").parts[0]


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of all that is imported, at any depth of the code."""
    parts = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level] if node.level else ()
            module = ".".join((*base, *(node.module.split(".") if node.module else ())))
            if module == PACKAGE:  # `from . import model`: the names are what is imported
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def forbidden_imports(root: Path) -> list[str]:
    """List every import that goes against the arrows."""
    found = []
    for path in modules(root):
        here = room_of(path, root)
        if here in JOINERS:
            continue
        allowed = SHARED | ROOMS.get(here, frozenset()) | {here}
        for line, name in imports(path, root):
            head, _, rest = name.partition(".")
            if head == PACKAGE:
                # A name that is no module comes from __init__, which imports every room.
                target = rest.split(".")[0]
                is_module = (root / target).is_dir() or (root / f"{target}.py").is_file()
                if target not in allowed or not is_module:
                    found.append(f"{path.relative_to(root)}:{line}: {here} imports {name}")
            elif head in FOREIGN.get(here, frozenset()):
                found.append(f"{path.relative_to(root)}:{line}: {here} imports {name}")
    return found


def own_event_loops(root: Path, room: str) -> list[str]:
    """List every place in a room that makes or drives an event loop."""
    found = []
    for path in modules(root / room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.ImportFrom) and node.module == "asyncio":
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                names = {node.attr}
                if isinstance(node.value, ast.Name) and node.value.id == "asyncio":
                    names |= {f"asyncio.{node.attr}"}
            else:
                continue
            names = {"asyncio.run" if name == "run" and is_import(node) else name for name in names}
            for name in names & (LOOP_CALLS | {"asyncio.run"}):
                found.append(f"{path.relative_to(root)}:{node.lineno}: {name}")
    return found


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom)


def long_modules(root: Path) -> list[str]:
    """List the modules with more than MAX_LINES lines."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(root)}
    return [f"{p.relative_to(root)}: {n} lines" for p, n in lengths.items() if n > MAX_LINES]


def test_imports_follow_the_arrows() -> None:
    assert forbidden_imports(ROOT) == []


@pytest.mark.parametrize("room", ["model", "engine"])
def test_pure_rooms_have_no_event_loop(room: str) -> None:
    assert own_event_loops(ROOT, room) == []


def test_every_room_is_known() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms - JOINERS <= set(ROOMS), "give the new room its arrows in ROOMS"


def test_no_module_is_too_long() -> None:
    assert long_modules(ROOT) == []


def package(root: Path, files: dict[str, str]) -> Path:
    for name in ("__init__", "state", "errors", "executor", "context"):
        (root / f"{name}.py").write_text("")
    for room in ROOMS:
        (root / room).mkdir()
        (root / room / "__init__.py").write_text("")
    for name, text in files.items():
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("engine/x.py", "from graphorch_ray.runtime import pool"),
        ("engine/x.py", "from ..runtime.pool import Pool"),
        ("engine/x.py", "from .. import runtime"),
        ("engine/__init__.py", "from .. import runtime"),
        ("engine/x.py", "import graphorch_ray.runtime"),
        ("engine/x.py", "import graphorch_ray"),
        ("engine/x.py", "from graphorch_ray import State"),
        ("engine/x.py", "from graphorch_ray import context"),
        ("engine/x.py", "import ray.exceptions"),
        ("engine/x.py", "from time import monotonic"),
        ("engine/x.py", "def f():\n    import asyncio"),
        ("model/x.py", "import ray"),
        ("model/x.py", "from graphorch_ray.engine import machine"),
        ("runtime/x.py", "from graphorch_ray.engine import machine"),
        ("runtime/x.py", "from graphorch_ray.executor import GraphExecutor"),
        ("checkpoint/x.py", "from ..telemetry import spans"),
        ("telemetry/x.py", "import typing\nif typing.TYPE_CHECKING:\n    from .. import runtime"),
        ("state.py", "from .model import Graph"),
        ("context.py", "from . import runtime"),
    ],
)
def test_checker_sees_an_import_against_the_arrows(tmp_path: Path, file: str, code: str) -> None:
    root = package(tmp_path, {file: code})
    assert len(forbidden_imports(root)) == 1


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("engine/x.py", "from ..model.graph import Graph\nfrom ..state import State"),
        ("engine/x.py", "from . import commands\nfrom .commands import Launch"),
        ("engine/x.py", "from .. import errors, model"),
        ("model/x.py", "import asyncio, inspect\nfrom graphorch_ray.errors import GraphWarning"),
        ("runtime/x.py", "import ray\nfrom graphorch_ray.model import Graph"),
        ("executor.py", "from . import engine, runtime, checkpoint, telemetry, model"),
    ],
)
def test_checker_lets_the_arrows_pass(tmp_path: Path, file: str, code: str) -> None:
    assert forbidden_imports(package(tmp_path, {file: code})) == []


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasyncio.run(f())",
        "from asyncio import run",
        "loop.run_until_complete(f())",
        "asyncio.new_event_loop()",
    ],
)
def test_checker_sees_an_event_loop(tmp_path: Path, code: str) -> None:
    assert own_event_loops(package(tmp_path, {"model/x.py": code}), "model")


def test_checker_lets_an_ordinary_run_pass(tmp_path: Path) -> None:
    root = package(tmp_path, {"model/x.py": "node.run()\nasyncio.to_thread(f)"})
    assert own_event_loops(root, "model") == []


def test_checker_sees_a_long_module(tmp_path: Path) -> None:
    root = package(tmp_path, {"engine/x.py": "x = 1\n" * (MAX_LINES + 1)})
    assert long_modules(root) == [f"engine/x.py: {MAX_LINES + 1} lines"]


def test_in_the_runtime_only_the_ray_backend_knows_ray() -> None:
    """And the rest of the runtime asks for that backend in one place, when it is wanted."""
    outside = list((ROOT / "runtime").glob("*.py"))
    assert outside
    found = {
        (path.name, name)
        for path in outside
        for _, name in imports(path, ROOT)
        if name.split(".")[0] == "ray" or ".on_ray" in name
    }
    assert found == {("__init__.py", "graphorch_ray.runtime.on_ray.ray_pool")}
