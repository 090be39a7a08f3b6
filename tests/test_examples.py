"""Every example runs, and prints what it says it shows."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples import (
    async_fanout,
    coming_from_graphorchestrator,
    crash_and_resume,
    hello_graph,
    human_approval,
    model_node,
    resources,
    stdlib_survey,
)

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def on_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples name no backend: they follow the environment, as a user's program would."""
    name = "inline"
    if "backend" in request.fixturenames:
        name = request.getfixturevalue("backend")
    elif "ray_session" in request.fixturenames:
        name = "ray"
    monkeypatch.setenv("GRAPHORCH_BACKEND", name)


def run_script(
    name: str, *arguments: str, cwd: Path, answers: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run an example as a user would, from some other folder, in this process's backend."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        input=answers,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def small_library(folder: Path) -> Path:
    """A folder with a few of this Python's own modules, one package, and one odd file."""
    for name in ("argparse.py", "bisect.py", "colorsys.py", "json/decoder.py", "json/encoder.py"):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((Path(os.__file__).parent / name).read_bytes())
    odd = folder / "lib2to3/tests/data/py2_test_grammar.py"
    odd.parent.mkdir(parents=True)
    odd.write_text("print 'one', two\n")
    (folder / "test").mkdir()
    (folder / "test" / "test_bisect.py").write_text("def f(): pass\n")
    return folder


def test_every_example_says_what_it_is_and_is_tested_here() -> None:
    tested = set(re.findall(r"^    (\w+),$", Path(__file__).read_text().partition(")\n")[0], re.M))
    found = {path.stem for path in EXAMPLES.glob("*.py")}
    assert found == tested
    for name in found:
        tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
        assert f"python examples/{name}.py" in (ast.get_docstring(tree) or ""), name


def test_hello_graph(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    hello_graph.main()
    assert capsys.readouterr().out == "State(['HELLO, WORLD!'])\n"


def test_async_fanout(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    async_fanout.main(calls=40, at_once=20)
    out = capsys.readouterr().out
    assert re.search(r"^40 calls in \d+\.\d\d s; one after another, 4\.0 s$", out, re.M)
    assert f"sum of squares: {sum(n * n for n in range(40)):,}" in out
    assert re.search("in [1-4] worker processes" if backend == "ray" else "in this process", out)


def test_model_node(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    model_node.main(train=600, batch=400)
    out = capsys.readouterr().out
    assert re.search(r"^batch 2: \d+ of 397 right$", out, re.M)
    right = re.search(r"^all: (\d+)% of 1197 pictures$", out, re.M)
    assert right is not None
    assert int(right[1]) > 80
    assert "visits: 3; processes that built a model: 1" in out


@pytest.mark.parametrize(
    ("answers", "last"),
    [
        ("yes\n", f"sent: {human_approval.DRAFTS[0]}"),
        ("perhaps\nshorter\nshorter\nYES\n", "sent: Monday."),
        ("no\n", "not sent"),
    ],
)
def test_human_approval(
    answers: str,
    last: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answers))
    human_approval.main()
    out = capsys.readouterr().out
    assert out.rstrip().endswith(f"[yes / no / shorter] {last}")
    assert ("Please answer" in out) is ("perhaps" in answers)


def test_human_approval_asks_in_the_driver_on_ray(
    ray_session: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("shorter\nyes\n"))
    human_approval.main()
    assert "sent: Dear all, we shall meet on Monday." in capsys.readouterr().out


def test_human_approval_takes_its_answers_from_a_pipe(tmp_path: Path) -> None:
    done = run_script("human_approval.py", cwd=tmp_path, answers="shorter\nyes\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("sent: Dear all, we shall meet on Monday.")


def test_resources(ray_session: str, capsys: pytest.CaptureFixture[str]) -> None:
    resources.main(numbers=1000)
    out = capsys.readouterr().out
    assert "sum of squares: 332,833,500" in out
    assert "stuck at first, done at attempt 1" in out
    assert "stuck: 2 attempts, 1 of them over its time limit" in out
    assert "refused before any work: Node 'train' asks for {'fast_disk': 1.0" in out


def test_resources_without_ray_says_that_requests_do_not_count(tmp_path: Path) -> None:
    done = run_script("resources.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train: trained (in this process: requests count on Ray only)" in done.stdout
    assert "A thread cannot be stopped" in done.stderr


def test_coming_from_graphorchestrator(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    coming_from_graphorchestrator.main()
    kind, *rows = capsys.readouterr().out.splitlines()
    assert kind in ("calm", "storm")
    assert [row.split(":")[0].strip() for row in rows] == ["mean", "spread", "sensor"]
    assert rows[2] == "  sensor: asleep"


def test_coming_from_graphorchestrator_imports_the_names_it_imported_before() -> None:
    source = (EXAMPLES / "coming_from_graphorchestrator.py").read_text(encoding="utf-8")
    _, _, before = source.partition("# Before:\n")
    before = before.partition("# After:")[0].replace("#     ", "").replace("#", "")

    def names(code: str, package: str) -> set[str]:
        imports = [n for n in ast.parse(code).body if isinstance(n, ast.ImportFrom)]
        return {a.name for n in imports if (n.module or "").startswith(package) for a in n.names}

    assert names(before, "graphorchestrator.") == names(source, "graphorch_ray") != set()


def test_stdlib_survey(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_library(tmp_path)
    stdlib_survey.main(["--root", str(root), "--shards", "3"])
    out = capsys.readouterr().out
    assert re.search(r"^argparse +1 ", out, re.M)
    assert re.search(r"^json +2 ", out, re.M)
    assert re.search(r"^everything +5 ", out, re.M), "the test suite is left out"
    assert "the graph's findings and the plain loop's are the same" in out
    assert "py2_test_grammar.py: 3 attempts, 2 retries, 1 fallback, which found 2 words" in out
    assert re.search(r"^second pass: \d+ functions", out, re.M)
    assert re.search(r"^one process, a plain loop +\d+\.\d\d s$", out, re.M)
    assert re.search(rf"^this graph, {backend} +\d+\.\d\d s +\d+\.\d\d times as fast", out, re.M)
    assert re.search(r"^start-up, once a program +\d+\.\d\d s$", out, re.M)


def test_stdlib_survey_runs_from_any_folder_and_makes_an_odd_file_where_there_is_none(
    tmp_path: Path,
) -> None:
    root = small_library(tmp_path / "library")
    (root / "lib2to3/tests/data/py2_test_grammar.py").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run_script("stdlib_survey.py", "--root", str(root), "--tests", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^everything +6 ", done.stdout, re.M), "the test suite is there"
    assert "graphorch_badsyntax.py: 3 attempts, 2 retries, 1 fallback" in done.stdout
    assert list(elsewhere.iterdir()) == []


def test_stdlib_survey_counts_what_it_says(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import os.path, sys\n"
        "from json import loads\n"
        "def f(a):\n"
        "    'Has a docstring.'\n"
        "    if a:\n"
        "        for b in a:\n"
        "            pass\n"
        "    elif b:\n"
        "        pass\n"
    )
    measured = stdlib_survey.measure(tmp_path, module)
    assert (measured.lines, measured.functions, measured.branches) == (9, 1, 3)
    assert (measured.longest, measured.longest_name) == (7, "f")
    assert (measured.documented, measured.documentable) == (1, 2)
    assert measured.imports == {"os", "sys", "json"}
    (function,) = stdlib_survey.look_closer(tmp_path, module)
    assert (function.name, function.lines, function.paths, function.nesting) == ("f", 7, 4, 2)


def test_stdlib_survey_deals_by_size(tmp_path: Path) -> None:
    sizes = {"a": 90, "b": 50, "c": 40, "d": 10}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"#" * size)
    shards = stdlib_survey.deal([tmp_path / name for name in sizes], 2)
    assert [sum(sizes[Path(path).name] for path in shard) for shard in shards] == [100, 90]


def test_a_killed_run_goes_on_in_another_process(tmp_path: Path) -> None:
    done = run_script("crash_and_resume.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines == [
        "the first process ended with SIGKILL",
        "newest checkpoint: superstep 4, running",
        f"resumed: 3 more rounds of {crash_and_resume.ROUNDS}",
        "y = 3.00 x + 2.00",
        "from superstep 2: 5 rounds, a new branch",
    ]
