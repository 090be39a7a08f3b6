"""Many runs of one graph, a few at a time, their results as they come."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

from .checking import check_count
from .checkpoint import CheckpointSettings
from .checkpoint.places import open_store
from .executor import GraphExecutor
from .model.graph import Graph
from .state import State
from .telemetry import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyResult:
    """How one run of many ended.

    Attributes:
        index: which it was: the place of its state among those given, from 0.
        final_state: what `end` produced last; None where it was never reached, or the run failed.
        error: what `execute()` raised, or None.
        summary: facts about the run; None where it could not be begun.
        checkpoint_path: where its checkpoints are, or None.
    """

    index: int
    final_state: State | None = None
    error: Exception | None = None
    summary: RunSummary | None = None
    checkpoint_path: str | None = None


def run_many(
    graph: Graph,
    states: Iterable[State] | AsyncIterable[State],
    *,
    max_concurrent_runs: int = 4,
    max_workers: int | None = None,
    max_supersteps: int = 100,
    superstep_timeout: float | None = 300.0,
    checkpoint_path: str | None = None,
    resume: bool = False,
    **options: Any,
) -> ManyRuns:
    """Run a graph once for each state, some runs at a time.

    The slots are divided: each of the runs at work has an equal share of `max_workers` to itself,
    so that no run, however wide, holds up the others. A run's share is not lent out while it
    waits. A run that fails does not end the others: its error is its result. States are taken
    from the iterable as runs begin, and nothing is kept of a run whose result was handed on; so
    a thousand runs take no more memory than ten, and a reader that is slow holds the rest up.

    Args:
        graph: what to run.
        states: the states that the runs begin with; a generator may make them as they are needed.
        max_concurrent_runs: runs at once, at most.
        max_workers: node executions at once in all runs together; one for each run at least.
            Default: 4, or `max_concurrent_runs` where that is more.
        max_supersteps, superstep_timeout: for each run, as for `execute()`.
        checkpoint_path: a directory or URL; run number 7 keeps its checkpoints in ``{path}/7``.
        resume: a run that has checkpoints there goes on from the newest, and one that has
            finished gives its result again.
        options: further ones of `GraphExecutor`, the same for all runs.

    Returns:
        An iterator of `ManyResult`, in the order in which runs end, and an asynchronous one. To
        stop reading is to cancel what runs; in coroutines, close it (`contextlib.aclosing`).

    Raises:
        TypeError, ValueError: an argument is wrong; names it and what is legal.

    Example:
        ```python
        for result in run_many(graph, (State([path]) for path in paths), max_concurrent_runs=8):
            print(result.index, result.error or result.final_state)
        ```
    """
    check_count("max_concurrent_runs", max_concurrent_runs, 1)
    if max_workers is None:
        max_workers = max(4, max_concurrent_runs)
    check_count("max_workers", max_workers, 1)
    if max_workers < max_concurrent_runs:
        raise ValueError(
            f"max_workers={max_workers} leaves some of max_concurrent_runs={max_concurrent_runs} "
            "without a worker: give as many workers as runs, or more"
        )
    if not isinstance(states, Iterable | AsyncIterable):
        raise TypeError(f"states must be an iterable of State, not {type(states).__name__}")
    if resume and checkpoint_path is None:
        raise ValueError("resume=True needs a checkpoint_path to go on from")
    if checkpoint_path is not None and not open_store(checkpoint_path).keeps_history:
        raise ValueError(
            f"checkpoint_path must be a directory, in which each run has its own: "
            f"'{checkpoint_path}' names a file"
        )
    GraphExecutor(graph, State(), **options)  # refuses options that no run could have
    limits = max_supersteps, superstep_timeout
    return ManyRuns(
        graph, states, max_concurrent_runs, max_workers, limits, checkpoint_path, resume, options
    )


class ManyRuns:
    """Iterates over the results of `run_many`, once; `for` and `async for` both work."""

    def __init__(
        self,
        graph: Graph,
        states: Iterable[State] | AsyncIterable[State],
        at_once: int,
        max_workers: int,
        limits: tuple[int, float | None],
        path: str | None,
        resume: bool,
        options: dict[str, Any],
    ) -> None:
        self._graph = graph
        self._states = states
        self._seats = min(at_once, max(1, len(states))) if isinstance(states, Sized) else at_once
        self._max_workers = max_workers
        self._limits = limits
        self._path = None if path is None else path.rstrip("/")
        self._resume = resume
        self._options = options

    def __aiter__(self) -> AsyncIterator[ManyResult]:
        return self._results()

    async def _results(self) -> AsyncGenerator[ManyResult, None]:
        states = aiter(_taken(self._states))
        share, more = divmod(self._max_workers, self._seats)
        free = deque(share + (seat < more) for seat in range(self._seats))
        running: dict[asyncio.Task[ManyResult], int] = {}
        index, there_are_more = 0, True
        try:
            while True:
                while free and there_are_more:
                    try:
                        state = await anext(states)
                    except StopAsyncIteration:
                        there_are_more = False
                        break
                    workers = free.popleft()
                    running[asyncio.ensure_future(self._run(index, state, workers))] = workers
                    index += 1
                    del state
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda task: task.result().index):
                    free.append(running.pop(task))
                    yield task.result()
                del done, task
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

    async def _run(self, index: int, state: State, workers: int) -> ManyResult:
        path = None if self._path is None else f"{self._path}/{index}"
        summary: RunSummary | None = None
        try:
            executor = await self._executor(state, workers, path)
            executor._sharing = self._seats
            try:
                final = await executor.execute(*self._limits)
            finally:
                summary = executor.summary
        except Exception as error:
            return ManyResult(index=index, error=error, summary=summary, checkpoint_path=path)
        return ManyResult(index=index, final_state=final, summary=summary, checkpoint_path=path)

    async def _executor(self, state: State, workers: int, path: str | None) -> GraphExecutor:
        if self._resume and path is not None:
            own = ("backend", "clock", *CheckpointSettings.__annotations__)
            options = {k: v for k, v in self._options.items() if k in own}
            try:
                executor = await asyncio.to_thread(
                    GraphExecutor.resume, path, self._graph, **options
                )
            except FileNotFoundError:
                pass
            else:
                executor.max_workers = workers
                return executor
        return GraphExecutor(self._graph, state, workers, checkpoint_path=path, **self._options)

    # --- for callers with no event loop -------------------------------------------------------

    def __iter__(self) -> Iterator[ManyResult]:
        """Drive the runs in a thread, so that they go on while their results are looked at."""
        results = self._results()
        asked: asyncio.Task[Any] | None = None

        async def next_result() -> ManyResult | None:
            nonlocal asked
            asked = asyncio.current_task()
            return await anext(results, None)

        async def close() -> None:
            if asked is not None and not asked.done():  # the wait for it was interrupted
                asked.cancel()
                await asyncio.wait((asked,))
            await results.aclose()

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="graphorch-many", daemon=True)
        thread.start()
        try:
            while True:
                result = asyncio.run_coroutine_threadsafe(next_result(), loop).result()
                if result is None:
                    return
                yield result
                del result
        finally:
            asyncio.run_coroutine_threadsafe(close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _taken(states: Iterable[State] | AsyncIterable[State]) -> AsyncIterator[State]:
    """States one by one, from either kind of iterable."""
    if isinstance(states, AsyncIterable):
        async for state in states:
            yield state
    else:
        for state in states:
            yield state
