"""What a job runs first, on the cluster: is this the Python that the run needs?

It is shipped beside `job.json`, under a name of its own, and runs before anything of graphorch_ray
is imported. Python 3.7 can still read it, so that an old one can say that it is too old.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))

OLDEST_PYTHON = (3, 11)

PACKAGES = "`pip install graphorch-ray` brings it"


def problem(client: dict[str, Any], shipped: bool) -> str | None:
    """Say in one sentence why this Python cannot do it, or give None."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    place = f"The cluster's Python ({python}, {sys.executable})"
    if tuple(sys.version_info) < OLDEST_PYTHON:
        return f"{place} is too old: graphorch_ray needs 3.11 or newer on the cluster, too"
    try:
        import ray
    except ImportError as error:
        return f"{place} has no Ray ({error}): name another interpreter with --python"
    oldest = [int(part) for part in client["oldest_ray"].split(".")]
    if [int(part) for part in ray.__version__.split(".")[:2]] < oldest:
        return (
            f"The cluster's Ray is {ray.__version__}; graphorch_ray needs {client['oldest_ray']} "
            "or newer there"
        )
    try:
        import graphorch_ray
    except ImportError as error:
        if error.name == "graphorch_ray":
            return f"{place} has no graphorch_ray: install it there, or submit without --installed"
        return f"{place} lacks '{error.name}', which graphorch_ray needs there ({PACKAGES})"
    if not shipped and graphorch_ray.__version__ != client["graphorch_ray"]:
        return (
            f"The cluster has graphorch_ray {graphorch_ray.__version__} and this client "
            f"{client['graphorch_ray']}: install the same there, or submit without --installed"
        )
    return None


def warning(client: dict[str, Any]) -> str | None:
    """Say what differs and need not matter, or give None."""
    here = ".".join(str(part) for part in sys.version_info[:2])
    there = ".".join(client["python"].split(".")[:2])
    if here == there:
        return None
    return (
        f"the cluster runs Python {here}, the client {there}: your code must suit both, for it is "
        "the source that travels"
    )


def main() -> None:
    """Check, and then run what the client asked for."""
    with open(os.path.join(HERE, "job.json"), encoding="utf-8") as file:
        job = json.load(file)
    found = problem(job["client"], job["shipped"])
    if found:
        sys.stderr.write(f"graphorch-ray: error: {found}\n")
        sys.exit(3)
    told = warning(job["client"])
    if told:
        sys.stderr.write(f"graphorch-ray: warning: {told}\n")
    from graphorch_ray.jobs.inside import run

    sys.exit(run(job, HERE))


if __name__ == "__main__":
    main()
