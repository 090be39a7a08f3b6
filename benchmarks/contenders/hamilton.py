"""Apache Hamilton with its Ray adapter: functions whose parameters name what they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hamilton import ad_hoc_utils, base, driver
from hamilton.function_modifiers import group, inject, parameterize, source, value
from hamilton.plugins import h_ray


def _driver(*functions: Callable[..., Any]) -> driver.Driver:
    adapter = h_ray.RayGraphAdapter(result_builder=base.DictResult())
    module = ad_hoc_utils.create_temporary_module(*functions)
    return driver.Builder().with_modules(module).with_adapters(adapter).build()


def fan_out(function: Callable[[Any], int], inputs: Sequence[Any]) -> Callable[[], int]:
    names = [f"n{number}" for number in range(len(inputs))]

    @parameterize(
        **{name: {"given": value(item)} for name, item in zip(names, inputs, strict=True)}
    )
    def call(given: Any) -> int:
        return function(given)

    @inject(results=group(*[source(name) for name in names]))
    def total(results: list[int]) -> int:
        return sum(results)

    call.__annotations__ = {"given": float, "return": int}
    total.__annotations__ = {"results": list[int], "return": int}
    graph = _driver(call, total)
    return lambda: graph.execute(["total"])["total"]


def chain(function: Callable[[Any], Any], first: Any, length: int) -> Callable[[], Any]:
    def n0() -> Any:
        return function(first)

    @parameterize(
        **{f"n{number}": {"before": source(f"n{number - 1}")} for number in range(1, length)}
    )
    def call(before: Any) -> Any:
        return function(before)

    n0.__annotations__ = {"return": object}
    call.__annotations__ = {"before": object, "return": object}
    graph = _driver(n0, call)
    last = f"n{length - 1}"
    return lambda: graph.execute([last])[last]
