"""The commands that README and docs tell people to type, and what becomes of each in the tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
PROGRAMS = (*("docker", "graphorch-ray", "kubectl", "make", "pip", "python", "ray", "ssh"),)

HERE = frozenset(
    {
        "graphorch-ray run flow.py:graph --input state.json --checkpoint runs/7 --report run.html",
        "graphorch-ray resume runs/7 --graph flow.py:graph",
    }
)
"""Run by tests/cli/test_docs.py, as are all console blocks of docs/command-line.md."""

ON_A_CLUSTER = frozenset(
    {
        "graphorch-ray run flow.py:graph",
        "graphorch-ray doctor",
        "graphorch-ray submit --address http://head:8265 --working-dir . -- run flow.py:graph "
        "--input state.json",
        "graphorch-ray submit --address http://10.0.0.1:8265 --working-dir . -- run flow.py:graph "
        "--input names.json --output out.json --report run.html",
        "graphorch-ray doctor --address HOST:6379 --jobs http://HOST:8265 "
        "--checkpoint s3://bucket/try",
        "graphorch-ray attach JOB --address URL",
        "graphorch-ray resume URL",
        "graphorch-ray runs",
        "graphorch-ray runs list",
        "graphorch-ray runs show NAME",
        "graphorch-ray runs pause NAME",
        "graphorch-ray runs resume NAME",
        "graphorch-ray runs cancel NAME",
        "graphorch-ray runs result NAME",
        "graphorch-ray runs --address HOST:PORT show NAME",
    }
)
"""Run by tests/chaos/test_documented_commands.py and tests/chaos/test_jobs.py, on a real head."""

FORMS = frozenset(
    {
        "graphorch-ray run … --hosted NAME",
        "graphorch-ray submit … -- run …",
    }
)
"""Forms of a command, not commands; the test of `runs` and that of `submit` fill them in."""

NOT_RUN = {
    "docker run --rm -p 16686:16686 -p 4318:4318 jaegertracing/all-in-one": "needs Docker",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 OTEL_METRICS_EXPORTER=none "
    "python my_graph.py": "needs a Jaeger; tests/telemetry exports to a receiver in its place",
    "kubectl get secret": "needs Kubernetes",
    "ssh -L 8265:localhost:8265 head": "needs another machine",
    "ray up": "needs machines to start",
    "ray up cluster.yaml": "needs machines; tests/test_deploy.py checks the file by Ray's schema",
    "ray get-auth-token --generate": "would write a token into the home directory",
    "pip install .": "`make` does it, and tests/test_packaging.py builds and installs the package",
    "pip install '.[examples]'": "downloads packages",
    "pip install graphorch-ray": "downloads packages",
    "pip install 'graphorch-ray[jobs]'": "downloads packages",
    "pip install 'graphorch-ray[s3]'": "downloads packages",
    "pip install 'graphorch-ray[otlp]'": "downloads packages",
    "make demo": "makes an environment; tests/test_examples.py runs the program",
    "make test": "is what runs this",
    "make bench": "takes half an hour; tests/test_benchmarks.py runs its parts",
    'make bench ARGS="--only W2 W4 --rounds 5"': "as `make bench`",
    'make bench ARGS="--from-json A.json B.json --page docs/benchmarks.md"': "needs the files of "
    "two runs; tests/test_benchmarks.py puts such files together",
    "make PYTHON=python3.12 bench": "as `make bench`",
    "python -m benchmarks.scaling": "measures for minutes; tests/test_benchmarks.py runs its parts",
    "python -m benchmarks.telemetry": "measures for minutes",
    "python -m graphorch_ray": "the same program by another name, by which chaos tests call it",
}
"""What cannot be run here, and why. Its form is checked."""


def commands(page: Path) -> list[str]:
    """The command lines in a page's shell blocks and in its text."""
    text = page.read_text("utf-8")
    shell = "\n".join(block for kind, block in BLOCK.findall(text) if kind == "sh")
    lines = shell.replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    found = [" ".join(re.sub(r"\s+# .*", "", line).split()) for line in lines]
    return [line for line in found if is_command(line)]


def exports(page: Path) -> list[str]:
    """The variables that a page says to set."""
    return re.findall(r"^export (\w+)=", page.read_text("utf-8"), re.M)


def is_command(line: str) -> bool:
    """Whether it begins with a program, and variables set for it, and goes on."""
    words = line.split()
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return len(words) > 1 and words[0] in PROGRAMS


def shape(text: str) -> str:
    """A pattern for what is printed: numbers stand for numbers, … for anything."""
    pattern = re.escape(text.strip())
    pattern = re.sub(r"(?<![\w/])\d[\d:.\\-]*\b", r"[\\d:.-]+", pattern)
    return re.sub(r"\s+|(\\ )+|(\\\n)+", r"\\s+", pattern).replace("…", r"(.|\n)*")


def consoles(page: Path) -> list[list[tuple[str, str]]]:
    """The console blocks of a page: each command in them, and what it is said to print."""
    found = []
    for kind, block in BLOCK.findall(page.read_text("utf-8")):
        if kind == "console":
            steps = re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.M)[1:]
            found.append([(step.partition("\n")[0], step.partition("\n")[2]) for step in steps])
    return found
