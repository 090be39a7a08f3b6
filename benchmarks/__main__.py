"""Compare graphorch_ray with other ways to do the same work: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from . import local_ray


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="WORK", help="such as W2 or C1; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", type=Path, help="write every value to this file")
    parser.add_argument("--page", type=Path, help="write this Markdown page, and plots beside it")
    arguments = parser.parse_args(given)
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return arguments


def tell(text: str) -> None:
    """Say how far it is, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run the chosen works and show what they took; 1 where a contender of ours failed."""
    arguments = arguments_of()
    local_ray.prepare_environment()
    from . import contenders
    from .machine import describe, load
    from .measuring import Result, measure
    from .page import write_page
    from .reporting import as_table
    from .works import WORKS

    unknown = sorted(set(arguments.only or ()) - set(WORKS))
    if unknown:
        print(f"There is no work {', '.join(unknown)}; there are {', '.join(WORKS)}.")
        return 2
    works = [WORKS[key](arguments.quick) for key in arguments.only or WORKS]
    began, facts = datetime.now(UTC), describe()
    facts |= {"began": began.isoformat(), "rounds": arguments.rounds, "quick": arguments.quick}
    results: dict[str, Result] = {}
    for needs_ray in (False, True):  # what starts a Ray of its own is to find none
        chosen = [work for work in works if work.needs_ray is needs_ray]
        with local_ray.local_ray() if needs_ray and chosen else nullcontext():
            for work in chosen:
                results[work.key] = measure(work, arguments.rounds, tell)
                contenders.close()
                print(as_table(results[work.key]), flush=True)
    in_order = [results[work.key] for work in works]
    facts["load_at_end"] = load()
    if arguments.json:
        saved = {"facts": facts, "results": [result.as_json() for result in in_order]}
        arguments.json.write_text(json.dumps(saved, indent=1) + "\n")
    if arguments.page:
        write_page(in_order, facts, arguments.page)
    return int(any(name.startswith("graphorch_ray") for r in in_order for name in r.left_out))


if __name__ == "__main__":
    sys.exit(main())
