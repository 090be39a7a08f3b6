"""What can be said of a hosted run at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RunState = Literal["pending", "running", "paused", "finished", "failed", "cancelled", "lost"]
"""Where a hosted run is.

``"pending"``: its driver waits to be started, or to be replaced; ``"paused"``: it waits at a
barrier; ``"lost"``: its driver died and is not replaced.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A hosted run at one moment.

    Attributes:
        name: the run's name.
        state: where it is; see `RunState`.
        run_id: identifies the run, in traces and checkpoints too; None where its driver has not
            started yet.
        graph: the graph's name, or None where the driver has not started yet.
        superstep: the superstep that it is in, or that comes next; None where it is not known.
        active_nodes: the nodes that are active in it.
        started: when the driver first started, in Unix seconds, or None.
        ended: when the run ended, in Unix seconds, or None.
        restarts: how often its driver was replaced.
        where: Ray's id of the machine that the driver is on, or None.
        host: the address of that machine, or None.
        checkpoint_path: where its checkpoints are, or None.
        error: why it failed, or was lost, or None.

    Example:
        ```python
        for run in graphorch_ray.list_runs():
            print(run.name, run.state, run.superstep)
        ```
    """

    name: str
    state: RunState
    run_id: str | None = None
    graph: str | None = None
    superstep: int | None = None
    active_nodes: tuple[str, ...] = ()
    started: float | None = None
    ended: float | None = None
    restarts: int = 0
    where: str | None = None
    host: str | None = None
    checkpoint_path: str | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("finished", "failed", "cancelled", "lost")
