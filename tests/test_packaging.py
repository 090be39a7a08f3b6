"""What is installed, and what it is installed from."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import graphorch_ray

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "graphorch_ray"
LOCKED = sorted((ROOT / "requirements").glob("*.txt"))
# An address, an option that names an index, a direct reference, a place on one machine.
PLACES = re.compile(
    r"\w+://|git\+|--(extra-)?index-url|--find-links|--trusted-host|^-[if]\b|\s@\s|(^|\s)/\w", re.M
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(path: Path) -> dict[str, list[str]]:
    """Map each locked name to its versions (more than one where Python versions differ)."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.M):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def declared() -> list[Requirement]:
    extras = project()["optional-dependencies"]
    lines = [*project()["dependencies"], *(line for lines in extras.values() for line in lines)]
    return [Requirement(line) for line in lines]


def test_version_has_a_single_source() -> None:
    assert project().get("version") is None
    assert "version" in project()["dynamic"]
    assert importlib.metadata.version("graphorch-ray") == graphorch_ray.__version__
    literals = [
        path.name
        for path in PACKAGE.rglob("*.py")
        if f'"{graphorch_ray.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert literals == ["__init__.py"]


def test_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "Typing :: Typed" in project()["classifiers"]


def test_what_is_no_python_is_in_the_wheel_too(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {Path(name).suffix for name in files} >= {".html", ".css", ".js"}
    assert files <= packed


def test_all_is_sorted_and_importable() -> None:
    names = graphorch_ray.__all__
    assert list(names) == sorted(set(names))
    assert [name for name in names if not hasattr(graphorch_ray, name)] == []


def test_a_worker_imports_nothing_that_only_a_driver_needs() -> None:
    """Each worker process pays for what it imports: the driver's half is a third of a second."""
    code = (
        "import graphorch_ray.runtime.on_ray.items, graphorch_ray.runtime.on_ray.worker, sys\n"
        "print(*(name for name in sys.modules if name.startswith('graphorch_ray.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert rooms.isdisjoint({"checkpointing", "executor", "many", "run", "runs", "telemetry"})
    assert "runtime" in rooms


def test_what_is_imported_late_is_listed_and_a_wrong_name_is_not_there() -> None:
    assert {"GraphExecutor", "run_many", "telemetry"} <= set(dir(graphorch_ray))
    with pytest.raises(AttributeError, match="no attribute 'GraphExecuter'"):
        graphorch_ray.GraphExecuter  # noqa: B018
    with pytest.raises(ImportError, match="GraphExecuter"):
        exec("from graphorch_ray import GraphExecuter")


def test_licence_is_shipped() -> None:
    assert project()["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_every_dependency_has_a_lower_bound() -> None:
    unbound = [
        str(requirement)
        for requirement in declared()
        if requirement.name != "graphorch-ray" and not requirement.specifier
    ]
    assert unbound == []


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.name)
def test_every_pin_has_a_hash(path: Path) -> None:
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", path.read_text(), flags=re.M))
    assert len(entries) > 10
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_locked_files_agree() -> None:
    dev = pins(ROOT / "requirements" / "dev.txt")
    for path in LOCKED:
        differing = {
            name for name, versions in pins(path).items() if dev.get(name, versions) != versions
        }
        assert differing == set(), path.name


def test_locked_and_minimum_versions_are_in_range() -> None:
    minimum = pins(ROOT / "constraints" / "minimum.txt")
    locked: dict[str, list[str]] = {}
    for path in LOCKED:
        locked |= pins(path)
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        for version in (*locked.get(name, []), *minimum.get(name, [])):
            assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_minimum_versions_are_the_lower_bounds() -> None:
    minimum = pins(ROOT / "constraints" / "minimum.txt")
    for requirement in map(Requirement, project()["dependencies"]):
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        (tested,) = minimum[canonicalize_name(requirement.name)]
        assert Version(tested) == Version(bound.version), requirement.name


@pytest.mark.parametrize(
    "path",
    [*LOCKED, ROOT / "requirements" / "build.in", ROOT / "constraints" / "minimum.txt"],
    ids=lambda path: path.name,
)
def test_requirements_name_no_place(path: Path) -> None:
    found = PLACES.search(path.read_text(encoding="utf-8"))
    assert found is None, found


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "-i example.org",
        "ray @ file:wheels/ray.whl",
        "# made by uv from /home/me/pyproject.toml",
        "--find-links wheels",
    ],
)
def test_a_place_would_be_seen(line: str) -> None:
    assert PLACES.search(f"ray==2.60.0\n{line}\n")
