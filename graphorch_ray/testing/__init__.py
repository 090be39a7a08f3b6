"""Tools for testing graphs of your own, and the place that your checkpoints go to.

Example:
    ```python
    clock = FakeClock()
    executor = GraphExecutor(graph, State(), backend="inline", clock=clock)
    executor.run()  # a retry policy with waits of minutes takes no time
    assert clock.slept == [60.0, 120.0]

    check_store("s3://my-bucket/try", storage_options={"endpoint_url": "https://…"})
    ```
"""

from __future__ import annotations

from .clock import FakeClock
from .faults import FaultyFileSystem
from .store import RuleBroken, StoreReport, check_store

__all__ = ["FakeClock", "FaultyFileSystem", "RuleBroken", "StoreReport", "check_store"]
