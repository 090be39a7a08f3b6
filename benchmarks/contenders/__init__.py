"""How each contender does each work, one module for each contender.

The modules share a vocabulary. Each function prepares what may be prepared once, and gives a
function that does the work and returns its answer; a contender has those that it can do.

- `fan_out(function, inputs)`: one node for each input, and the sum of what they give;
- `fan_out_async(function, inputs)`: the same with a coroutine function;
- `share(function, value, count)`: one value to many nodes, and the sum of what they give;
- `chain(function, value, length)`: nodes one after another; gives what the last one gave;
- `loop(function, value, times)`: a node repeated until its value has reached a number;
- `close()`: ends what was started for all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def use(module: str, primitive: str, *arguments: Any, **options: Any) -> Callable[[], Any]:
    """A contender's way to do a work; its module is imported when it runs first.

    Args:
        module: the contender's module.
        primitive: one of the functions above, or a variant of it.
        arguments, options: for that function.
    """
    ready: list[Callable[[], Any]] = []

    def run() -> Any:
        if not ready:
            prepare = getattr(import_module(f".{module}", __name__), primitive)
            ready.append(prepare(*arguments, **options))
        return ready[0]()

    return run


def close() -> None:
    """End the servers and pools that contenders have started; the next use starts them again."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{__name__}.") and hasattr(module, "close"):
            module.close()
