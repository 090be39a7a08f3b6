"""Compare graphorch_ray with other ways to do the same work: `python -m benchmarks`.

Every contender does the same work in turn, several times over, so that whatever else the machine
does hits all of them. What counts is the ratio of medians; seconds are shown for scale.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from .work import WORKS


def measure(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, interleaved; all must give the same answer."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    answers = {name: run() for name, run in contenders.items()}  # also warms everybody up
    if len({repr(answer) for answer in answers.values()}) > 1:
        raise SystemExit(f"the contenders disagree: {answers}")
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def show(title: str, seconds: dict[str, list[float]]) -> None:
    """Print a table: median, spread, and how many times faster than the first contender."""
    base = statistics.median(next(iter(seconds.values())))
    print(f"\n{title}")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        spread = f"{min(taken):.3f} to {max(taken):.3f}"
        print(f"  {name:28} {median:8.3f} s   ({spread})   {base / median:6.2f} x")


def main() -> None:
    """Run the chosen benchmarks and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*WORKS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="also write the seconds to this file")
    arguments = parser.parse_args()
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=tempfile.mkdtemp(prefix="gor", dir="/tmp"),
    )
    results = {}
    for name in arguments.names or WORKS:
        title, contenders = WORKS[name]()
        results[name] = measure(contenders, arguments.rounds)
        show(f"{name}: {title}", results[name])
    ray.shutdown()
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
