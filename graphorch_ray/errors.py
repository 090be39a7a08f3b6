"""Every exception and warning that the library raises on purpose.

::

    GraphOrchestratorException
    ├── building a graph
    │   ├── DuplicateNodeError
    │   ├── EdgeExistsError
    │   ├── NodeNotFoundError
    │   ├── GraphConfigurationError
    │   ├── NodeActionNotDecoratedError
    │   ├── AggregatorActionNotDecorated
    │   ├── ToolMethodNotDecorated
    │   ├── RoutingFunctionNotDecoratedError
    │   └── EmptyToolNodeDescriptionError
    ├── what a user's function gave back
    │   ├── InvalidNodeActionOutput
    │   ├── InvalidToolMethodOutput
    │   ├── InvalidAggregatorActionError
    │   ├── InvalidAIActionOutput
    │   └── InvalidRoutingFunctionOutput
    ├── a run
    │   ├── GraphExecutionError
    │   ├── NodeTimeoutError          (also a TimeoutError)
    │   ├── WorkerLostError
    │   ├── StateLostError
    │   ├── RemoteError
    │   └── SerializationError
    ├── a hosted run
    │   ├── RunExistsError
    │   ├── RunNotFoundError          (also a LookupError)
    │   ├── RunCancelledError
    │   └── RunLostError
    ├── the cluster
    │   ├── ResourceRequestError
    │   ├── ClusterConnectionError    (also a ConnectionError)
    │   └── JobFailedError
    └── CheckpointError
        └── CheckpointConflictError

    GraphWarning                      (a UserWarning)

The lines in lower case only group; all classes but the last two descend directly
from the root. Every exception can be pickled and keeps its attributes and notes.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AggregatorActionNotDecorated",
    "CheckpointConflictError",
    "CheckpointError",
    "ClusterConnectionError",
    "DuplicateNodeError",
    "EdgeExistsError",
    "EmptyToolNodeDescriptionError",
    "GraphConfigurationError",
    "GraphExecutionError",
    "GraphOrchestratorException",
    "GraphWarning",
    "InvalidAIActionOutput",
    "InvalidAggregatorActionError",
    "InvalidNodeActionOutput",
    "InvalidRoutingFunctionOutput",
    "InvalidToolMethodOutput",
    "JobFailedError",
    "NodeActionNotDecoratedError",
    "NodeNotFoundError",
    "NodeTimeoutError",
    "RemoteError",
    "ResourceRequestError",
    "RoutingFunctionNotDecoratedError",
    "RunCancelledError",
    "RunExistsError",
    "RunLostError",
    "RunNotFoundError",
    "SerializationError",
    "StateLostError",
    "ToolMethodNotDecorated",
    "WorkerLostError",
]


class GraphWarning(UserWarning):
    """Something legal that is surely a mistake; the graph is built, the run goes on."""


class GraphOrchestratorException(Exception):
    """Root of every exception of this library: catch it to catch them all.

    Example:
        >>> try:
        ...     raise NodeNotFoundError("ghost")
        ... except GraphOrchestratorException as error:
        ...     print(error)
        Node 'ghost' not found in the graph.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by class, arguments and attributes, without running ``__init__`` again."""
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    cls: type[GraphOrchestratorException], args: tuple[Any, ...], attributes: dict[str, Any]
) -> GraphOrchestratorException:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


# --- building a graph ---------------------------------------------------------------------------


class DuplicateNodeError(GraphOrchestratorException):
    """Two nodes of one graph have the same id."""

    def __init__(self, node_id: str) -> None:
        """Name the id that is taken."""
        self.node_id = node_id
        super().__init__(f"Node with id '{node_id}' already exists.")


class EdgeExistsError(GraphOrchestratorException):
    """A second edge, of either kind, between the same two nodes."""

    def __init__(self, source_id: str, sink_id: str) -> None:
        """Name both ends of the edge."""
        self.source_id = source_id
        self.sink_id = sink_id
        super().__init__(f"Edge from '{source_id}' to '{sink_id}' already exists.")


class NodeNotFoundError(GraphOrchestratorException):
    """An id that no node of the graph has."""

    def __init__(self, node_id: str) -> None:
        """Name the unknown id."""
        self.node_id = node_id
        super().__init__(f"Node '{node_id}' not found in the graph.")


class GraphConfigurationError(GraphOrchestratorException):
    """A graph that could not run; ``message`` says why."""

    def __init__(self, message: str) -> None:
        """Say what is wrong with the graph."""
        self.message = message
        super().__init__(f"Graph configuration error: {message}")


def _name_of(func: object) -> str:
    name = getattr(func, "__name__", None)
    return name if isinstance(name, str) else repr(func)


class NodeActionNotDecoratedError(GraphOrchestratorException):
    """A function given to a node without ``@node_action``."""

    def __init__(self, func: object) -> None:
        """Name the function."""
        super().__init__(
            f"The function '{_name_of(func)}' passed to ProcessingNode must be decorated "
            "with @node_action."
        )


class RoutingFunctionNotDecoratedError(GraphOrchestratorException):
    """A router given to a conditional edge without ``@routing_function``."""

    def __init__(self, func: object) -> None:
        """Name the function."""
        super().__init__(
            f"The function '{_name_of(func)}' passed to ConditionalEdge must be decorated "
            "with @routing_function."
        )


class AggregatorActionNotDecorated(GraphOrchestratorException):
    """A function given to an aggregator without ``@aggregator_action``."""

    def __init__(self, func: object) -> None:
        """Name the function."""
        super().__init__(
            f"The function '{_name_of(func)}' passed to Aggregator must be decorated "
            "with @aggregator_action"
        )


class ToolMethodNotDecorated(GraphOrchestratorException):
    """A function given to a tool node without ``@tool_method``."""

    def __init__(self, func: object) -> None:
        """Name the function."""
        super().__init__(
            f"The function '{_name_of(func)}' passed to ToolNode has to be decorated "
            "with @tool_method"
        )


class EmptyToolNodeDescriptionError(GraphOrchestratorException):
    """A tool node with neither a description nor a docstring on its function."""

    def __init__(self, func: object) -> None:
        """Name the function."""
        super().__init__(
            f"The tool function '{_name_of(func)}' has no description or docstring provided"
        )


# --- what a user's function gave back -----------------------------------------------------------


class InvalidNodeActionOutput(GraphOrchestratorException):
    """A node action returned something that is not a ``State``."""

    def __init__(self, returned_value: object) -> None:
        """Name the type and the value that came back."""
        super().__init__(f"Node action must return a state, but got {_typed(returned_value)}")


class InvalidToolMethodOutput(GraphOrchestratorException):
    """A tool method returned something that is not a ``State``."""

    def __init__(self, returned_value: object) -> None:
        """Name the type and the value that came back."""
        super().__init__(f"Tool method must return a state, but got {_typed(returned_value)}")


class InvalidRoutingFunctionOutput(GraphOrchestratorException):
    """A router returned something that is not a node id."""

    def __init__(self, returned_value: object) -> None:
        """Name the type and the value that came back."""
        super().__init__(f"Routing function must return a string, but got {_typed(returned_value)}")


class InvalidAggregatorActionError(GraphOrchestratorException):
    """An aggregator action returned something that is not a ``State``."""

    def __init__(self, returned_value: object) -> None:
        """Name the type that came back."""
        super().__init__(
            f"Aggregator action must return a state, but got {type(returned_value).__name__}"
        )


class InvalidAIActionOutput(GraphOrchestratorException):
    """An AI action returned something that is not a ``State``."""

    def __init__(self, returned_value: object) -> None:
        """Name the type that came back."""
        super().__init__(f"AI action must return a state, but got {type(returned_value).__name__}")


def _typed(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # a broken __str__ must not hide the error it is part of
        text = object.__repr__(value)
    return f"{type(value).__name__}: {text}"


# --- a run --------------------------------------------------------------------------------------


class GraphExecutionError(GraphOrchestratorException):
    """A run ended because of one node; the node's own exception is the ``__cause__``.

    Attributes:
        node_id: The node to look at (``"N/A"`` where no single node is to blame).
        message: What happened, without the node.
        run_id: The run, where known.
        superstep: The superstep, counted from 0, where known.
        attempt: The attempt, counted from 0, where known.
    """

    def __init__(
        self,
        node_id: str,
        message: str,
        *,
        run_id: str | None = None,
        superstep: int | None = None,
        attempt: int | None = None,
    ) -> None:
        """Name the node and say what happened."""
        self.node_id = node_id
        self.message = message
        self.run_id = run_id
        self.superstep = superstep
        self.attempt = attempt
        super().__init__(f"Execution failed at node '{node_id}': {message}")


class NodeTimeoutError(GraphOrchestratorException, TimeoutError):
    """One attempt of a node took longer than the node's ``timeout``.

    Attributes:
        node_id: The node.
        timeout: The limit, in seconds.
    """

    def __init__(self, node_id: str, timeout: float) -> None:
        """Name the node and its limit in seconds."""
        super().__init__(f"Node '{node_id}' exceeded its timeout of {timeout}s.")
        self.node_id = node_id
        self.timeout = timeout

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0]) if self.args else ""


class WorkerLostError(GraphOrchestratorException):
    """Workers or machines were lost more often than the run's budget for that allows.

    Attributes:
        node_id: The node that ran there.
        reason: What was lost, as far as it is known.
        attempts: How often the node was started in vain.
    """

    def __init__(self, node_id: str, reason: str, attempts: int = 1) -> None:
        """Name the node, the reason and the number of starts."""
        self.node_id = node_id
        self.reason = reason
        self.attempts = attempts
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(f"The worker of node '{node_id}' was lost {times}: {reason}")


class StateLostError(GraphOrchestratorException):
    """A state was lost with its machine and could not be brought back."""


class SerializationError(GraphOrchestratorException):
    """Something that has to travel, or to be stored, could not be pickled.

    Attributes:
        what: What could not be pickled.
        where: Where it was found, for example the node and the variable.
    """

    def __init__(self, what: str, where: str) -> None:
        """Say what could not be pickled, and where it was found."""
        self.what = what
        self.where = where
        super().__init__(f"Cannot serialize {what} ({where}).")


# --- a hosted run -------------------------------------------------------------------------------


class RunExistsError(GraphOrchestratorException):
    """The cluster has a hosted run of that name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        """Name the run."""
        self.name = name
        super().__init__(
            f"The cluster has a run named '{name}' already, or keeps the result of one. Choose "
            f"another name, or look at that one with get_run({name!r})."
        )


class RunNotFoundError(GraphOrchestratorException, LookupError):
    """The cluster has no hosted run of that name, or has one no longer.

    Attributes:
        name: The name.
        reason: What is known.
    """

    def __init__(self, name: str, reason: str) -> None:
        """Name the run and say what is known."""
        super().__init__(f"There is no run named '{name}': {reason}.")
        self.name = name
        self.reason = reason


class RunCancelledError(GraphOrchestratorException):
    """A hosted run was cancelled, so that it has no result.

    Attributes:
        name: The run.
    """

    def __init__(self, name: str) -> None:
        """Name the run."""
        self.name = name
        super().__init__(f"Run '{name}' was cancelled.")


class RunLostError(GraphOrchestratorException):
    """The driver of a hosted run died, and is not replaced.

    Attributes:
        name: The run.
        reason: What became of the driver.
        left: What is left of the run.
    """

    def __init__(self, name: str, reason: str, left: str) -> None:
        """Name the run, and say what happened and what is left."""
        self.name = name
        self.reason = reason
        self.left = left
        super().__init__(f"The driver of run '{name}' is lost; {left}. Ray says: {reason}")


# --- the cluster --------------------------------------------------------------------------------


class ResourceRequestError(GraphOrchestratorException):
    """A node asks for resources that no machine of the cluster could ever give.

    Attributes:
        node_id: The node.
        request: What it asks for.
        available: What the machines have.
    """

    def __init__(self, node_id: str, request: object, available: object) -> None:
        """Name the node, its request and what there is."""
        self.node_id = node_id
        self.request = request
        self.available = available
        super().__init__(
            f"Node '{node_id}' asks for {request}, which no machine can give; "
            f"available: {available}."
        )


class ClusterConnectionError(GraphOrchestratorException, ConnectionError):
    """The cluster could not be reached.

    Attributes:
        address: The address that was tried.
        reason: Why it failed.
    """

    def __init__(self, address: str, reason: str) -> None:
        """Name the address and the reason."""
        super().__init__(f"Cannot connect to '{address}': {reason}")
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0]) if self.args else ""


class JobFailedError(GraphOrchestratorException):
    """A Ray job was refused, or ended without a result.

    Attributes:
        job_id: The job.
        status: Its state, as Ray names it; ``"REFUSED"`` where it never became one.
        message: What happened.
        exit_code: Its command's exit code; None where it never ran, or was killed.
    """

    def __init__(
        self, job_id: str, status: str, message: str, exit_code: int | None = None
    ) -> None:
        """Name the job and say what happened."""
        self.job_id = job_id
        self.status = status
        self.message = message
        self.exit_code = exit_code
        super().__init__(f"Job '{job_id}' {status.lower()}: {message}")


class CheckpointError(GraphOrchestratorException):
    """A checkpoint could not be written, found, trusted or read."""


class CheckpointConflictError(CheckpointError):
    """Another driver has taken over the run that this one was recording."""


class RemoteError(GraphOrchestratorException):
    """Stands for an exception that could not travel from a worker to the driver.

    Attributes:
        type_name: The class of the original exception.
        text: Its text.
        remote_traceback: Its traceback, formatted in the worker.
    """

    def __init__(self, type_name: str, text: str, remote_traceback: str = "") -> None:
        """Name the original exception's class, text and traceback."""
        self.type_name = type_name
        self.text = text
        self.remote_traceback = remote_traceback
        super().__init__(f"{type_name}: {text}")
