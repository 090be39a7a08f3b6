"""Compare graphorch_ray with other ways to do the same work: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
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
        "--from-json", type=Path, metavar="FILE", help="run nothing; write the page from this"
    )
    arguments = parser.parse_args(given)
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if arguments.from_json and not arguments.page:
        parser.error("--from-json needs --page")
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
        saved = json.loads(arguments.from_json.read_text())
        results = [Result.from_json(result) for result in saved["results"]]
        write_page(results, saved["facts"], arguments.page)
        return 0
    facts, results = run_works(arguments)
    if arguments.page:
        write_page(results, facts, arguments.page)
    return int(any(name.startswith("graphorch_ray") for r in results for name in r.left_out))


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
                    results = [each.as_json() for each in found.values()]
                    text = json.dumps({"facts": facts, "results": results}, indent=1)
                    arguments.json.write_text(text + "\n")
    return facts, [found[work.key] for work in works]


if __name__ == "__main__":
    sys.exit(main())
