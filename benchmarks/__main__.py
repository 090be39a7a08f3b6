"""Compare graphorch_ray with other ways to do the same work: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import local_ray
from .measuring import Result


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="WORK", help="such as W2 or C1; default: all")
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="contenders to leave out"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument(
        "--limit",
        type=float,
        default=120.0,
        help="leave out whoever takes longer than these seconds for one work; default 120",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", type=Path, help="write every value to this file")
    parser.add_argument("--page", type=Path, help="write this Markdown page, and plots beside it")
    parser.add_argument(
        "--from-json",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="run nothing; put these together (the later ones win), for --json and --page",
    )
    arguments = parser.parse_args(given)
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if arguments.from_json and not arguments.page:
        parser.error("--from-json needs --page")
    for file in arguments.from_json or ():
        if not file.is_file():
            parser.error(f"--from-json: there is no file {file}")
    return arguments


def tell(text: str) -> None:
    """Say how far it is, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run the chosen works and show what they took; 1 where a contender of ours failed."""
    arguments = arguments_of()
    local_ray.prepare_environment()
    from .page import write_page

    if arguments.from_json:
        facts, results = put_together(arguments.from_json)
        write_page(results, facts, arguments.page)
        if arguments.json:
            save(facts, results, arguments.json)
        return 0
    facts, results = run_works(arguments)
    if arguments.page:
        write_page(results, facts, arguments.page)
    return int(any(name.startswith("graphorch_ray") for r in results for name in r.left_out))


def put_together(files: Sequence[Path]) -> tuple[dict[str, Any], list[Result]]:
    """The results of several runs; of a work that is in several, those of the last."""
    from .works import WORKS

    parts = []
    found: dict[str, Result] = {}
    for file in files:
        try:
            parts.append(json.loads(file.read_text()))
            found |= {each["key"]: Result.from_json(each) for each in parts[-1]["results"]}
        except (KeyError, TypeError, ValueError) as wrong:
            raise SystemExit(f"{file} was not written by --json: {wrong!r}") from None
    facts = parts[-1]["facts"]
    facts["began"] = min(part["facts"]["began"] for part in parts)
    for when, choose in (("load_at_begin", min), ("load_at_end", max)):
        facts[when] = choose(part["facts"].get(when, 0.0) for part in parts)
    return facts, [found[key] for key in WORKS if key in found]


def save(facts: dict[str, Any], results: Sequence[Result], file: Path) -> None:
    """Write every value to a file."""
    told = {"facts": facts, "results": [result.as_json() for result in results]}
    file.write_text(json.dumps(told, indent=1) + "\n")


def run_works(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Result]]:
    """Run the chosen works; each table is printed, and the file written, once it is known."""
    from . import contenders
    from .machine import describe, load
    from .measuring import measure
    from .reporting import as_table
    from .works import WORKS

    unknown = sorted(set(arguments.only or ()) - set(WORKS))
    if unknown:
        raise SystemExit(f"There is no work {', '.join(unknown)}; there are {', '.join(WORKS)}.")
    works = [WORKS[key](arguments.quick) for key in arguments.only or WORKS]
    facts: dict[str, Any] = {"began": datetime.now(UTC).isoformat(timespec="seconds")}
    facts |= {"rounds": arguments.rounds, "quick": arguments.quick, **describe()}
    found: dict[str, Result] = {}
    for needs_ray in (False, True):  # what starts a Ray of its own is to find none
        chosen = [work for work in works if work.needs_ray is needs_ray]
        with local_ray.local_ray() if needs_ray and chosen else nullcontext():
            for work in chosen:
                result = measure(work, arguments.rounds, tell, arguments.limit, arguments.without)
                result.small = arguments.quick
                found[work.key] = result
                contenders.close()
                print(as_table(found[work.key]), flush=True)
                facts["load_at_end"] = load()
                if arguments.json:
                    save(facts, list(found.values()), arguments.json)
    return facts, [found[work.key] for work in works]


if __name__ == "__main__":
    sys.exit(main())
