"""What a checkpoint tells of a run besides its states, as plain data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..errors import CheckpointError
from ..model.graph import Graph
from ..policies import RetryPolicy


def check_same_graph(fingerprint: str | None, before: Mapping[str, str], graph: Graph) -> None:
    """Refuse a graph that is not the checkpoint's.

    Args:
        fingerprint: the checkpoint's, or None where it has none.
        before: by node id, the fingerprints of its nodes.
        graph: the graph to go on with.

    Raises:
        CheckpointError: lists what changed.
    """
    if fingerprint is None or fingerprint == graph.fingerprint:
        return
    now = graph.node_fingerprints
    changes = [
        *(f"node {node_id!r} is new" for node_id in now if node_id not in before),
        *(f"node {node_id!r} is gone" for node_id in before if node_id not in now),
        *(
            f"the code or options of node {node_id!r} changed"
            for node_id, fingerprint in now.items()
            if before.get(node_id, fingerprint) != fingerprint
        ),
    ] or ["its edges changed"]
    raise CheckpointError(
        f"The graph is not the one that the checkpoint was taken of: {'; '.join(changes)}. Give "
        "the same graph, or allow_graph_change=True if states that were made by the one may go "
        "on in the other."
    )


@cache
def versions() -> dict[str, str]:
    """What a run is made with."""
    from importlib.metadata import version

    ray = sys.modules.get("ray")
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    if (of_ray := getattr(ray, "__version__", None)) is not None:
        found["ray"] = of_ray
    package = sys.modules["graphorch_ray"]
    found["graphorch_ray"] = package.__version__
    found["pyarrow"] = version("pyarrow")
    return found


def policy_as_data(policy: RetryPolicy | None) -> list[Any] | None:
    """A retry policy as plain data."""
    if policy is None:
        return None
    data = [policy.max_retries, policy.delay, policy.backoff, policy.max_delay, policy.jitter]
    return [*data, _class_names(policy.retry_on)]


def _class_names(classes: Any) -> list[str] | None:
    if classes is None:
        return None
    listed = classes if isinstance(classes, tuple) else (classes,)
    return [f"{cls.__module__}:{cls.__qualname__}" for cls in listed]


def policy_from_data(given: Any) -> RetryPolicy | None:
    """The retry policy that `policy_as_data` wrote.

    Raises:
        CheckpointError: an exception that it names is not imported here, or it is damaged.
    """
    if given is None:
        return None
    try:
        retries, delay, backoff, longest, jitter, names = given
        classes = None if names is None else tuple(_exception_class(name) for name in names)
        return RetryPolicy(
            retries, delay, backoff, max_delay=longest, jitter=jitter, retry_on=classes
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint's retry policy is damaged: {error}") from error


def _exception_class(name: str) -> type[BaseException]:
    """A class by name, from what is imported already: a checkpoint must not import anything."""
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    raise CheckpointError(
        f"The checkpoint's retry policy names the exception {name!r}, which is not imported here. "
        f"Import {module!r} first."
    )
