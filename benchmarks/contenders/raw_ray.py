"""Ray without anything on top: one task for each node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

_actors: dict[type, Any] = {}


def _warm(kind: type, **options: Any) -> Any:
    """An actor of this class, the same one each time."""
    if kind not in _actors:
        _actors[kind] = ray.remote(kind).options(num_cpus=0, **options).remote()
    return _actors[kind]


def close() -> None:
    """End the actors."""
    while _actors:
        ray.kill(_actors.popitem()[1])


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    task = ray.remote(function)
    return lambda: sum(ray.get([task.remote(value) for value in inputs]))


def fan_out_async(function: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[], int]:
    """On one async actor, which is how Ray runs coroutines."""

    class Waiter:
        async def call(self, value: Any) -> Any:
            return await function(value)

    def run() -> int:
        actor = _warm(Waiter, max_concurrency=len(inputs))
        return sum(ray.get([actor.call.remote(value) for value in inputs]))

    return run


def share(function: Callable[[Any], int], value: Any, count: int) -> Callable[[], int]:
    """With one `put` for all tasks."""
    task = ray.remote(function)

    def run() -> int:
        shared = ray.put(value)
        return sum(ray.get([task.remote(shared) for _ in range(count)]))

    return run


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    """Each task awaited before the next one begins, as a driver that looks at values does."""
    task = ray.remote(function)

    def run() -> Any:
        result = value
        for _ in range(length):
            result = ray.get(task.remote(result))
        return result

    return run


def chain_of_references(
    function: Callable[[Any], Any], value: Any, length: int
) -> Callable[[], Any]:
    """Each task gets a reference to the result before; only the last one is fetched."""
    task = ray.remote(function)

    def run() -> Any:
        result = value
        for _ in range(length):
            result = task.remote(result)
        return ray.get(result)

    return run


def loop(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    """One actor, one blocking call for each repetition."""

    class Worker:
        def call(self, value: Any) -> Any:
            return function(value)

    def run() -> Any:
        actor = _warm(Worker)
        result = value
        while result < times:
            result = ray.get(actor.call.remote(result))
        return result

    return run
