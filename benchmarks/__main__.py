"""Compare graphorch_ray with other ways to do the same work: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import sys
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
    arguments = parser.parse_args(given)
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return arguments


def main() -> int:
    """Run the chosen works and show what they took; 1 where a contender of ours failed."""
    arguments = arguments_of()
    local_ray.prepare_environment()
    from .machine import describe
    from .measuring import Result, measure
    from .reporting import as_table
    from .works import WORKS

    unknown = sorted(set(arguments.only or ()) - set(WORKS))
    if unknown:
        print(f"There is no work {', '.join(unknown)}; there are {', '.join(WORKS)}.")
        return 2
    began, facts = datetime.now(UTC), describe()
    results: list[Result] = []
    with local_ray.local_ray():
        for key in arguments.only or WORKS:
            work = WORKS[key](arguments.quick)
            result = measure(work, arguments.rounds, lambda text: print(text, file=sys.stderr))
            results.append(result)
            print(as_table(result), flush=True)
            if arguments.json:
                saved = {"began": began.isoformat(), "machine": facts, "quick": arguments.quick}
                saved |= {"results": [each.as_json() for each in results]}
                arguments.json.write_text(json.dumps(saved, indent=1) + "\n")
    return int(any(name.startswith("graphorch_ray") for r in results for name in r.left_out))


if __name__ == "__main__":
    sys.exit(main())
