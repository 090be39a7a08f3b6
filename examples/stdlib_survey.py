"""Surveys the source of Python's standard library, on every core of this machine.

    python examples/stdlib_survey.py            # 20 to 40 seconds on two cores
    python examples/stdlib_survey.py --tests    # its test suites too: three times as much

What it shows of the library, in the order of the graph:

* `find` lists the files and deals them out, by size, into more shards than there are cores;
* one node for each shard parses its files with `ast` and measures them, a core each;
* `odd_file` gets a file that does not parse: it is retried in vain, then its fallback steps in;
* `merge` is an aggregator: it waits for all of them and makes one state of theirs;
* a router sends the worst modules round the loop once more, for a closer look at each function;
* `first_pass` carries what is known past that second pass, so that no shard has to.

The same functions then run in one plain loop in one process, and both times are printed.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import sysconfig
import tempfile
import time
import tokenize
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from graphorch_ray import (
    AggregatorNode,
    Graph,
    GraphBuilder,
    GraphExecutor,
    ProcessingNode,
    RetryPolicy,
    State,
    aggregator_action,
    current_execution,
    node_action,
    pass_through,
    routing_function,
)

WORST = 40  # modules that get a closer look
NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "data", "tokenizedata"}
TEST_SUITES = {"test", "tests", "idle_test"}
ODD_FILES = (  # Python's own examples of what does not parse; versions differ
    "lib2to3/tests/data/py2_test_grammar.py",
    "test/tokenizedata/badsyntax_3131.py",
    "test/badsyntax_3131.py",
)


# --- what travels along the edges ---------------------------------------------------------------


@dataclass
class Survey(State):
    """`messages` holds findings: `Module`, `Function`, `OddFile`; the rest says what to do next."""

    root: str = ""
    with_tests: bool = False
    depth: int = 1  # 1: every module; 2: the worst ones, function by function
    hands: int = 12  # how many shards to deal
    shards: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Module:
    path: str
    lines: int
    functions: int
    branches: int
    longest: int  # lines of its longest function
    longest_name: str
    documentable: int  # the module, its classes, its functions
    documented: int
    imports: frozenset[str]


@dataclass(frozen=True)
class Function:
    where: str
    name: str
    lines: int
    paths: int  # independent ways through it (McCabe)
    nesting: int


@dataclass(frozen=True)
class OddFile:
    path: str
    words: int


# --- the work itself: plain functions that know nothing of graphs -------------------------------

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTABLE = (ast.Module, ast.ClassDef, *FUNCTION)
BRANCH = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.match_case)
STATEMENT = (ast.stmt, ast.ExceptHandler, ast.match_case)
BLOCK = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old files have doubtful escapes in their strings
        return ast.parse(path.read_bytes())


def measure(root: Path, path: Path) -> Module:
    """The measures of the first pass."""
    source = path.read_bytes()
    functions = branches = longest = documentable = documented = 0
    longest_name = ""
    imports: set[str] = set()
    for part in ast.walk(parse(path)):
        if isinstance(part, DOCUMENTABLE):
            documentable += 1
            documented += ast.get_docstring(part, clean=False) is not None
            if isinstance(part, FUNCTION):
                functions += 1
                lines = (part.end_lineno or part.lineno) - part.lineno + 1
                if lines > longest:
                    longest, longest_name = lines, part.name
        elif isinstance(part, BRANCH):
            branches += 1
        elif isinstance(part, ast.Import):
            imports.update(alias.name.partition(".")[0] for alias in part.names)
        elif isinstance(part, ast.ImportFrom) and not part.level and part.module:
            imports.add(part.module.partition(".")[0])
    return Module(
        path=path.relative_to(root).as_posix(),
        lines=source.count(b"\n"),
        functions=functions,
        branches=branches,
        longest=longest,
        longest_name=longest_name,
        documentable=documentable,
        documented=documented,
        imports=frozenset(imports),
    )


def look_closer(root: Path, path: Path) -> Iterator[Function]:
    """The measures of the second pass: every function of a module by itself."""
    where = path.relative_to(root).as_posix()
    for part in ast.walk(parse(path)):
        if isinstance(part, FUNCTION):
            yield Function(
                where=where,
                name=part.name,
                lines=(part.end_lineno or part.lineno) - part.lineno + 1,
                paths=1 + sum(isinstance(inner, BRANCH) for inner in ast.walk(part)),
                nesting=nesting(part),
            )


def nesting(part: ast.AST) -> int:
    """How deep blocks stand in blocks; an `elif` is one deeper in the tree, but not to a reader."""
    chained = part.orelse if isinstance(part, ast.If) and len(part.orelse) == 1 else []
    depths = [
        nesting(child) - (child in chained and isinstance(child, ast.If))
        for child in ast.iter_child_nodes(part)
        if isinstance(child, STATEMENT)
    ]
    return max(depths, default=0) + isinstance(part, BLOCK)


def skim(path: Path) -> OddFile:
    """What can be said of a file without understanding it."""
    text = path.read_bytes().decode("utf-8", "replace")
    words = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            words += token.type == tokenize.NAME
    except (tokenize.TokenError, SyntaxError):
        words = len(text.split())
    return OddFile(path.name, words)


def find_files(root: Path, with_tests: bool) -> list[Path]:
    skipped = NOT_LIBRARY if with_tests else NOT_LIBRARY | TEST_SUITES
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in skipped]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(path for path in found if not path.name.startswith("badsyntax"))


def find_odd_file(root: Path) -> Path:
    for name in ODD_FILES:
        if (root / name).exists():
            return root / name
    made = Path(tempfile.gettempdir()) / "graphorch_badsyntax.py"  # an installation without tests
    made.write_text("print 'this was Python 2'\n")
    return made


def deal(paths: list[Path], hands: int) -> list[list[str]]:
    """Split files into shards of about the same number of bytes: the largest first."""
    shards: list[list[str]] = [[] for _ in range(hands)]
    filled = [0] * hands
    for size, path in sorted(((path.stat().st_size, str(path)) for path in paths), reverse=True):
        least = filled.index(min(filled))
        shards[least].append(path)
        filled[least] += size
    return shards


def worst(modules: list[Module]) -> list[Module]:
    """The modules with the longest functions, and the most branches in all."""
    return sorted(modules, key=lambda m: (-m.longest * m.branches, m.path))[:WORST]


# --- the nodes: each takes a state and returns the next one -------------------------------------


@node_action
def find(state: Survey) -> Survey:
    files = find_files(Path(state.root), state.with_tests)
    return replace(state, shards=deal(files, state.hands))


def shard(number: int) -> Callable[[Survey], Survey]:
    """Make the action of one shard's node: `number` goes to the worker inside the closure."""

    @node_action(num_cpus=1)  # a whole core: more would only get in each other's way
    def measure_shard(state: Survey) -> Survey:
        root = Path(state.root)
        paths = [Path(path) for path in state.shards[number]]
        if state.depth == 1:
            found: list[object] = [measure(root, path) for path in paths]
        else:
            found = [function for path in paths for function in look_closer(root, path)]
        return replace(state, messages=found, shards=[])

    return measure_shard


@node_action
def parse_odd_file(state: Survey) -> Survey:
    """Fails every time: at first as a bad network would, then for good."""
    if current_execution().attempt == 0:
        raise ConnectionError("the file server did not answer (we pretend)")
    path = find_odd_file(Path(state.root))
    return replace(state, messages=[measure(path.parent, path)], shards=[])


@node_action
def skim_odd_file(state: Survey) -> Survey:
    """The fallback: gets the same state, and its result takes the failed node's place."""
    path = find_odd_file(Path(state.root))
    return replace(state, messages=[skim(path)], shards=[])


@aggregator_action
def merge(states: list[Survey]) -> Survey:
    """All states that arrived, always in the same order, whichever came first."""
    findings = [finding for state in states for finding in state.messages]
    return replace(states[0], messages=findings, shards=[])


@node_action
def choose_worst(state: Survey) -> Survey:
    modules = [found for found in state.messages if isinstance(found, Module)]
    paths = [Path(state.root) / module.path for module in worst(modules)]
    return replace(state, depth=2, shards=deal(paths, state.hands))


@routing_function
def once_more(state: Survey) -> str:
    return "choose_worst" if state.depth == 1 else "end"


def build_graph(shards: int) -> Graph:
    builder = GraphBuilder("stdlib_survey")
    builder.add_node(ProcessingNode("find", find))
    builder.add_node(ProcessingNode("odd_file", parse_odd_file))
    builder.add_node(ProcessingNode("skim", skim_odd_file))
    builder.add_aggregator(AggregatorNode("merge", merge))
    builder.add_node(ProcessingNode("choose_worst", choose_worst))
    builder.add_node(ProcessingNode("first_pass", pass_through))

    builder.add_concrete_edge("start", "find")
    for number in range(shards):
        name = f"shard_{number}"
        builder.add_node(ProcessingNode(name, shard(number)))
        builder.add_concrete_edge("find", name)
        builder.add_concrete_edge("choose_worst", name)
        builder.add_concrete_edge(name, "merge")
    builder.add_concrete_edge("find", "odd_file")
    builder.add_concrete_edge("odd_file", "merge")
    builder.set_node_retry_policy("odd_file", RetryPolicy(max_retries=2, delay=0.1))
    builder.set_fallback_node("odd_file", "skim")
    builder.add_conditional_edge("merge", ["choose_worst", "end"], once_more)
    builder.add_concrete_edge("choose_worst", "first_pass")
    builder.add_concrete_edge("first_pass", "merge")
    return builder.build_graph()


# --- the same in one plain loop, to compare with ------------------------------------------------


def in_one_loop(root: Path, with_tests: bool) -> list[object]:
    modules = [measure(root, path) for path in find_files(root, with_tests)]
    functions = [f for module in worst(modules) for f in look_closer(root, root / module.path)]
    return [*modules, skim(find_odd_file(root)), *functions]


# --- what is printed ----------------------------------------------------------------------------


def print_tables(findings: list[object]) -> None:
    modules = [found for found in findings if isinstance(found, Module)]
    packages: dict[str, list[Module]] = {}
    for module in modules:
        packages.setdefault(module.path.partition("/")[0].removesuffix(".py"), []).append(module)
    largest = sorted(packages, key=lambda name: -sum(m.lines for m in packages[name]))[:12]

    row = "{:<16}{:>7}{:>9}{:>10}{:>10}{:>12}  {}"
    head = ("package", "files", "lines", "functions", "branches", "documented", "longest function")
    print(row.format(*head))
    for name in [*largest, ""]:
        members = packages[name] if name else modules
        longest = max(members, key=lambda m: m.longest)
        share = sum(m.documented for m in members) / (sum(m.documentable for m in members) or 1)
        print(
            row.format(
                name or "everything",
                len(members),
                f"{sum(m.lines for m in members):,}",
                f"{sum(m.functions for m in members):,}",
                f"{sum(m.branches for m in members):,}",
                f"{share:.0%}",
                f"{longest.longest_name} ({longest.longest} lines)" if longest.longest else "-",
            )
        )

    counts: dict[str, int] = {}
    for name in (name for module in modules for name in module.imports):
        counts[name] = counts.get(name, 0) + 1
    often = sorted(counts, key=lambda name: (-counts[name], name))[:8]
    print("\nimported most:", ", ".join(f"{name} ({counts[name]})" for name in often))

    functions = [found for found in findings if isinstance(found, Function)]
    print(f"\nsecond pass: {len(functions):,} functions of the {WORST} worst modules, the worst:")
    row = "{:<28}{:<28}{:>7}{:>7}{:>9}"
    print(row.format("function", "in", "paths", "lines", "nesting"))
    for found in sorted(functions, key=lambda f: (-f.paths, f.where, f.name))[:8]:
        print(row.format(found.name, found.where, found.paths, found.lines, found.nesting))


def start_ray() -> float:
    """Run a graph that does nothing: the first run of a program starts Ray. Returns seconds."""
    builder = GraphBuilder("nothing")
    builder.add_node(ProcessingNode("nothing", node_action(lambda state: state)))
    builder.add_concrete_edge("start", "nothing")
    builder.add_concrete_edge("nothing", "end")
    began = time.perf_counter()
    GraphExecutor(builder.build_graph(), State()).run()
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Survey the source of the standard library.")
    parser.add_argument("--root", default=sysconfig.get_path("stdlib"), help="another folder")
    parser.add_argument("--shards", type=int, default=12, help="pieces of work (12)")
    parser.add_argument("--tests", action="store_true", help="with the test suites")
    options = parser.parse_args(arguments)
    root = Path(options.root).resolve()

    print(f"Surveying {root}", flush=True)
    began = time.perf_counter()
    expected = in_one_loop(root, options.tests)
    alone = time.perf_counter() - began

    starting = start_ray()
    todo = Survey(root=str(root), with_tests=options.tests, hands=options.shards)
    executor = GraphExecutor(build_graph(options.shards), todo)
    # One process for each core is what CPU-bound work can use. Threads of one process gain nothing
    # here, and before CPython 3.12 `ast.parse` does not even like them.
    executor.max_workers = (os.cpu_count() or 1) if executor.backend == "ray" else 1
    began = time.perf_counter()
    result = executor.run()
    together = time.perf_counter() - began
    assert result is not None

    print()
    print_tables(result.messages)
    summary = executor.summary
    odd = summary.nodes["odd_file"]
    (skimmed,) = (found for found in result.messages if isinstance(found, OddFile))
    print(
        f"\n{skimmed.path}: {odd.attempts} attempts, {odd.retries} retries, {odd.fallbacks} "
        f"fallback, which found {skimmed.words} words"
    )
    same = set(result.messages) == set(expected)
    print(f"the graph's findings and the plain loop's are {'the same' if same else 'DIFFERENT'}\n")
    print(f"one process, a plain loop   {alone:6.2f} s")
    print(
        f"this graph, {executor.backend:<15} {together:6.2f} s   {alone / together:.2f} times as "
        f"fast, {summary.supersteps} supersteps, {summary.processes or 1} processes"
    )
    computed = sum(node.seconds for node in summary.nodes.values())
    print(f"  time in nodes, added up   {computed:6.2f} s")
    print(f"start-up, once a program    {starting:6.2f} s")


if __name__ == "__main__":
    main()
