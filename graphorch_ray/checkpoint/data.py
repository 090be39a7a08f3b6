"""A checkpoint as a value: made by hand or by an executor, saved to a place, loaded from one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..errors import CheckpointError
from ..model.graph import Graph
from ..policies import RetryPolicy
from ..state import State
from .facts import policy_as_data, policy_from_data, versions
from .kept import KeptStates, Later, Origin
from .manifest import Active, Header, Manifest, Stored
from .places import open_store
from .vault import Kept, load, save, vault_of

T = TypeVar("T")


class CheckpointData:
    """Everything that a run needs to go on from between two supersteps.

    What was loaded from a place is read when it is asked for.

    Attributes:
        graph: the graph.
        initial_state: the state the run began with.
        active_states: by node id, the states that have arrived at each active node, in order.
        superstep: the superstep that comes next.
        final_state: what `end` produced last, or None.
        retry_policy: the executor's default policy.
        max_workers: the executor's.
        run_id: the run this belongs to; None in one made by hand.
        branch: the branch of the run; a fork from an older checkpoint has its own.
        status: ``"running"``, ``"finished"`` or ``"failed"``.
        checkpoint_every: the executor's interval, in supersteps.
        allow_fallback_from_checkpoint: the executor's option.
        on_multiple_states, infrastructure_retries: the executor's options.
        active_sources: by node id, which nodes the active states came from.
        created: Unix time, in seconds.
        fingerprint: the graph's; None where something else was given in its place.
        node_fingerprints: by node id, that of each node.
        trace: the trace that the run belongs to, as OpenTelemetry carries it.
        settings: how the executor keeps its checkpoints; see `CheckpointSettings`.
        versions: what the run was made with, by name.
        origin: where it was loaded from, or None.
        kept: what it says of its states without reading them, or None.

    Example:
        ```python
        CheckpointData.load("runs/7").superstep
        ```
    """

    def __init__(
        self,
        graph: Graph,
        initial_state: State | Later[State],
        active_states: Mapping[str, Sequence[State]],
        superstep: int,
        final_state: State | Later[State] | None,
        retry_policy: RetryPolicy | None,
        max_workers: int,
        *,
        run_id: str | None = None,
        branch: str = "main",
        status: str = "running",
        checkpoint_every: int | None = None,
        allow_fallback_from_checkpoint: bool = False,
        on_multiple_states: str = "first",
        infrastructure_retries: int = 3,
        active_sources: Mapping[str, Sequence[str]] | None = None,
        trace: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the values as they are given; nothing is copied."""
        self._graph: Graph | Later[Graph] = graph
        self._initial_state: State | Later[State] = initial_state
        self._active_states: dict[str, list[State]] | Later[dict[str, list[State]]] = {
            node_id: list(states) for node_id, states in active_states.items()
        }
        self._final_state: State | Later[State] | None = final_state
        self.superstep = superstep
        self._retry_policy: RetryPolicy | Later[RetryPolicy | None] | None = retry_policy
        self.max_workers = max_workers
        self.run_id = run_id
        self.branch = branch
        self.status = status
        self.checkpoint_every = checkpoint_every
        self.allow_fallback_from_checkpoint = allow_fallback_from_checkpoint
        self.on_multiple_states = on_multiple_states
        self.infrastructure_retries = infrastructure_retries
        self.active_sources = {k: list(v) for k, v in (active_sources or {}).items()}
        self.fingerprint: str | None = getattr(graph, "fingerprint", None)
        self.node_fingerprints: dict[str, str] = dict(getattr(graph, "node_fingerprints", {}))
        self.graph_name: str | None = getattr(graph, "name", None)
        self.created = time.time()
        self.trace: dict[str, str] = dict(trace or {})
        self.settings: dict[str, Any] = dict(settings or {})
        self.versions = dict(versions())
        self.origin: Origin | None = None
        self.kept: KeptStates | None = None

    # --- what may be read later ---------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        """The graph; reading it from a place unpickles it, which needs trust."""
        return _got(self._graph)

    @graph.setter
    def graph(self, graph: Graph) -> None:
        self._graph = graph

    @property
    def initial_state(self) -> State:
        """The state the run began with."""
        return _got(self._initial_state)

    @initial_state.setter
    def initial_state(self, state: State) -> None:
        self._initial_state = state

    @property
    def active_states(self) -> dict[str, list[State]]:
        """By node id, the states that have arrived at each active node, in order."""
        return _got(self._active_states)

    @active_states.setter
    def active_states(self, states: dict[str, list[State]]) -> None:
        self._active_states = states

    @property
    def final_state(self) -> State | None:
        """What `end` produced last, or None."""
        final = self._final_state
        return final.get() if isinstance(final, Later) else final

    @final_state.setter
    def final_state(self, state: State | None) -> None:
        self._final_state = state

    @property
    def retry_policy(self) -> RetryPolicy | None:
        """The executor's default policy; the exceptions that it names must be imported."""
        policy = self._retry_policy
        return policy.get() if isinstance(policy, Later) else policy

    @retry_policy.setter
    def retry_policy(self, policy: RetryPolicy | None) -> None:
        self._retry_policy = policy

    @property
    def untouched(self) -> KeptStates | None:
        """What a run can go on from without reading states, where nobody has read them."""
        active, final = self._active_states, self._final_state
        for value in (active, final):
            if value is not None and not (isinstance(value, Later) and not value.touched):
                return None
        return self.kept

    # --- saving and loading -------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        key: bytes | str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        compression: str | None = None,
    ) -> None:
        """Write the checkpoint to a place, durably.

        A path that ends in ``.ckpt`` or ``.pkl``, or is a file, becomes one self-contained file,
        replaced in one step. Anything else is a directory of checkpoints; this one begins a line
        of its own there, beside what there is.

        Args:
            path: a local path or any fsspec URL.
            key: signs it; default ``GRAPHORCH_CHECKPOINT_KEY``.
            storage_options: for fsspec.
            compression: None, or ``"zstd"``.

        Raises:
            CheckpointError: it could not be written; an earlier one is still whole.
        """
        store = open_store(path, key=key, storage_options=storage_options, compression=compression)
        line = store.create_line(lambda blobs: self.header(blobs))
        states: dict[int, int] = {}
        stored: list[Stored] = []

        def number(state: State) -> int:
            if id(state) not in states:
                what = f"the checkpoint for '{path}': state"
                states[id(state)] = len(stored)
                stored.append(save(line.blobs, state, _size(state), what=what).stored)
            return states[id(state)]

        active = tuple(
            Active(
                node_id,
                tuple(self.active_sources.get(node_id, ())),
                tuple(number(state) for state in waiting),
            )
            for node_id, waiting in self.active_states.items()
        )
        final = None if self.final_state is None else number(self.final_state)
        line.commit(
            Manifest(
                kind="savepoint",
                status=self.status,
                superstep=self.superstep,
                states=tuple(stored),
                active=active,
                final=final,
                options=self.options(),
                trace=self.trace,
            )
        )

    def header(self, blobs: Any, parent: tuple[str, int] | None = None) -> Header:
        """What a line that begins with this checkpoint says of itself."""
        graph: Stored | None = None
        extra: dict[str, Any] = {"nodes": self.node_fingerprints}
        try:
            graph = save(blobs, self.graph, what="graph").stored
        except CheckpointError as error:
            extra["graph_error"] = str(error)
        return Header(
            run_id=self.run_id or "",
            branch=self.branch,
            parent=parent,
            graph_name=self.graph_name or "",
            fingerprint=self.fingerprint or "",
            graph=graph,
            initial=save(
                blobs, self.initial_state, _size(self.initial_state), what="initial_state"
            ).stored,
            versions=self.versions,
            extra=extra,
        )

    def options(self) -> dict[str, Any]:
        """The executor's options as plain data."""
        return {
            "max_workers": self.max_workers,
            "retry": policy_as_data(self.retry_policy),
            "every": self.checkpoint_every,
            "go_back": self.allow_fallback_from_checkpoint,
            "multiple": self.on_multiple_states,
            "lost": self.infrastructure_retries,
            "settings": self.settings,
        }

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        superstep: int | None = None,
        savepoint: str | None = None,
        line: str | None = None,
        key: bytes | str | None = None,
        allow_pickle: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> CheckpointData:
        """Open the newest checkpoint of a place, or another one. Its states are read when needed.

        Plain data loads anywhere and runs no code. What had to be pickled, the graph among it, is
        loaded only from a place that is trusted: a local file of your own that nobody else can
        write to, one with a valid signature, or any with `allow_pickle`.

        Args:
            path: a local path or any fsspec URL.
            superstep: the newest checkpoint that stands before this superstep.
            savepoint: the one that was kept under this name.
            line: look in this line only; default: the newest, then older ones.
            key: checks signatures; default ``GRAPHORCH_CHECKPOINT_KEY``.
            allow_pickle: trust what is there, whoever wrote it.
            storage_options: for fsspec.

        Raises:
            FileNotFoundError: there is no checkpoint.
            CheckpointError: it cannot be read, or is not one.
        """
        store = open_store(
            path, key=key, allow_pickle=allow_pickle, storage_options=storage_options
        )
        found, manifest = find(store, superstep=superstep, savepoint=savepoint, line=line)
        return from_manifest(store, found, manifest)

    def __repr__(self) -> str:
        active = [item.node_id for item in self.kept.active] if self.kept else None
        return (
            f"CheckpointData({self.graph_name!r}, superstep={self.superstep}, "
            f"status={self.status!r}, active={active or list(self.active_states)})"
        )


def find(
    store: Any,
    *,
    superstep: int | None = None,
    savepoint: str | None = None,
    line: str | None = None,
) -> tuple[Any, Manifest]:
    """The line and the manifest that are asked for.

    Raises:
        FileNotFoundError: the place holds no checkpoint at all.
        CheckpointError: it holds none of this kind.
    """
    names = [line] if line is not None else store.lines()[::-1]
    missed: CheckpointError | None = None
    unread: list[str] = []
    for name in names:
        found = store.line(name) if line is not None else store.readable(name)
        if found is None:
            unread.append(name)
            continue
        try:
            if savepoint is not None:
                seq = found.pins().get(savepoint)
                manifest = None if seq is None else found.load(seq)
            elif superstep is not None:
                manifest = found.at(superstep)
            else:
                manifest = found.newest()
        except CheckpointError as error:
            if superstep is None:
                raise
            missed = missed or error
            continue
        if manifest is not None:
            return found, manifest
    if missed is not None:
        raise missed
    for name in unread:
        if store.holds_checkpoints(name):
            store.line(name)  # raises what is wrong with it
    if savepoint is not None and names:
        raise CheckpointError(f"'{store.url}' has no savepoint {savepoint!r}.")
    raise FileNotFoundError(f"There is no checkpoint in '{store.url}'.")


def from_manifest(store: Any, line: Any, manifest: Manifest) -> CheckpointData:
    """The checkpoint that a manifest tells of."""
    header: Header = line.header
    trusted: bool = store.trusted(manifest)
    kept = KeptStates(
        vault_of(store, line),
        tuple(Kept(stored, trusted) for stored in manifest.states),
        manifest.active,
        manifest.final,
        manifest.done,
    )
    for active in manifest.active:
        _check_numbers(active.states, len(kept.states), line)
    _check_numbers([d.state for d in manifest.done], len(kept.states), line)
    _check_numbers(() if kept.final is None else (kept.final,), len(kept.states), line)

    data = CheckpointData.__new__(CheckpointData)
    data._graph = Later(lambda: _read_graph(store, line))
    data._initial_state = Later(lambda: _read_initial(store, line))
    data._active_states = Later(
        lambda: {a.node_id: [kept.read(number) for number in a.states] for a in kept.active}
    )
    final = manifest.final
    data._final_state = None if final is None else Later(lambda: kept.read(final))
    options = manifest.options
    data.superstep = manifest.superstep
    data._retry_policy = Later(lambda: policy_from_data(options.get("retry")))
    data.max_workers = options.get("max_workers", 4)
    data.run_id = header.run_id or None
    data.branch = header.branch or "main"
    data.status = manifest.status
    data.checkpoint_every = options.get("every")
    data.allow_fallback_from_checkpoint = options.get("go_back") is True
    data.on_multiple_states = options.get("multiple", "first")
    data.infrastructure_retries = options.get("lost", 3)
    data.active_sources = {a.node_id: list(a.sources) for a in manifest.active}
    data.fingerprint = header.fingerprint or None
    data.node_fingerprints = _texts(header.extra.get("nodes"))
    data.graph_name = header.graph_name
    data.created = manifest.created
    data.trace = _texts(manifest.trace)
    settings = options.get("settings")
    data.settings = dict(settings) if isinstance(settings, dict) else {}
    data.versions = _texts(header.versions)
    data.origin = Origin(store.url, line.name, manifest.seq)
    data.kept = kept
    return data


def _texts(given: Any) -> dict[str, str]:
    """What of a file's mapping has the right types: a checksum proves nothing about who made it."""
    items = given.items() if isinstance(given, dict) else ()
    return {k: v for k, v in items if isinstance(k, str) and isinstance(v, str)}


def _check_numbers(numbers: Sequence[int], known: int, line: Any) -> None:
    if any(number >= known for number in numbers):
        raise CheckpointError(
            f"A manifest of line {line.name} names a state that it does not hold."
        )


def _read_graph(store: Any, line: Any) -> Graph:
    header: Header = line.header
    if header.graph is None:
        why = header.extra.get("graph_error", "it was not saved")
        raise CheckpointError(
            f"The checkpoint in '{store.url}' holds no graph ({why}). Give it yourself: graph=..."
        )
    try:
        graph = load(line.blobs, header.graph, trusted=store.trusted(header), what="graph")
    except CheckpointError as error:
        error.add_note("Or give the graph yourself: graph=...")
        raise
    if not isinstance(graph, Graph):
        raise CheckpointError(f"The graph in '{store.url}' is a {type(graph).__name__}.")
    return graph


def _read_initial(store: Any, line: Any) -> State:
    header: Header = line.header
    if header.initial is None:
        raise CheckpointError(f"Line {line.name} of '{store.url}' holds no initial state.")
    state: State = load(
        line.blobs, header.initial, trusted=store.trusted(header), what="initial_state"
    )
    return state


def _size(state: Any) -> int:
    messages = getattr(state, "messages", ())
    return len(messages) if hasattr(messages, "__len__") else 0


def _got(value: T | Later[T]) -> T:
    return value.get() if isinstance(value, Later) else value
