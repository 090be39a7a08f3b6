"""Run a graph of Python functions superstep by superstep on Ray.

What a driver needs and a worker does not is imported when it is first asked for: a worker process
is there a third of a second earlier.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AggregatorActionNotDecorated,
    CheckpointConflictError,
    CheckpointError,
    ClusterConnectionError,
    DuplicateNodeError,
    EdgeExistsError,
    EmptyToolNodeDescriptionError,
    GraphConfigurationError,
    GraphExecutionError,
    GraphOrchestratorException,
    GraphWarning,
    InvalidAggregatorActionError,
    InvalidAIActionOutput,
    InvalidNodeActionOutput,
    InvalidRoutingFunctionOutput,
    InvalidToolMethodOutput,
    JobFailedError,
    NodeActionNotDecoratedError,
    NodeNotFoundError,
    NodeTimeoutError,
    RemoteError,
    ResourceRequestError,
    RoutingFunctionNotDecoratedError,
    RunCancelledError,
    RunExistsError,
    RunLostError,
    RunNotFoundError,
    SerializationError,
    StateLostError,
    ToolMethodNotDecorated,
    WorkerLostError,
)
from .model import (
    AggregatorNode,
    AIActionBase,
    AINode,
    ConcreteEdge,
    ConditionalEdge,
    Edge,
    Graph,
    GraphBuilder,
    HumanInTheLoopNode,
    Node,
    ProcessingNode,
    ToolNode,
    ToolSetNode,
    aggregator_action,
    node_action,
    pass_through,
    passThrough,
    routing_function,
    select_random_state,
    selectRandomState,
    tool_method,
)
from .policies import NodeOptions, RetryPolicy
from .runtime.context import ExecutionInfo, current_execution
from .state import State

if TYPE_CHECKING:
    from . import checkpoint as checkpoint
    from . import jobs as jobs
    from . import telemetry as telemetry
    from . import testing as testing
    from .checkpoint import CheckpointData, CheckpointInfo, list_checkpoints
    from .executor import GraphExecutor
    from .many import ManyResult, run_many
    from .runs import RunHandle, RunStatus, get_run, list_runs
    from .telemetry import NodeSummary, RunSummary

__version__ = "0.1.0"

__all__ = [
    "AIActionBase",
    "AINode",
    "AggregatorActionNotDecorated",
    "AggregatorNode",
    "CheckpointConflictError",
    "CheckpointData",
    "CheckpointError",
    "CheckpointInfo",
    "ClusterConnectionError",
    "ConcreteEdge",
    "ConditionalEdge",
    "DuplicateNodeError",
    "Edge",
    "EdgeExistsError",
    "EmptyToolNodeDescriptionError",
    "ExecutionInfo",
    "Graph",
    "GraphBuilder",
    "GraphConfigurationError",
    "GraphExecutionError",
    "GraphExecutor",
    "GraphOrchestratorException",
    "GraphWarning",
    "HumanInTheLoopNode",
    "InvalidAIActionOutput",
    "InvalidAggregatorActionError",
    "InvalidNodeActionOutput",
    "InvalidRoutingFunctionOutput",
    "InvalidToolMethodOutput",
    "JobFailedError",
    "ManyResult",
    "Node",
    "NodeActionNotDecoratedError",
    "NodeNotFoundError",
    "NodeOptions",
    "NodeSummary",
    "NodeTimeoutError",
    "ProcessingNode",
    "RemoteError",
    "ResourceRequestError",
    "RetryPolicy",
    "RoutingFunctionNotDecoratedError",
    "RunCancelledError",
    "RunExistsError",
    "RunHandle",
    "RunLostError",
    "RunNotFoundError",
    "RunStatus",
    "RunSummary",
    "SerializationError",
    "State",
    "StateLostError",
    "ToolMethodNotDecorated",
    "ToolNode",
    "ToolSetNode",
    "WorkerLostError",
    "aggregator_action",
    "current_execution",
    "get_run",
    "list_checkpoints",
    "list_runs",
    "node_action",
    "passThrough",
    "pass_through",
    "routing_function",
    "run_many",
    "selectRandomState",
    "select_random_state",
    "tool_method",
]

_LATER = {
    "CheckpointData": "checkpoint",
    "CheckpointInfo": "checkpoint",
    "GraphExecutor": "executor",
    "ManyResult": "many",
    "NodeSummary": "telemetry",
    "RunHandle": "runs",
    "RunStatus": "runs",
    "RunSummary": "telemetry",
    "get_run": "runs",
    "list_checkpoints": "checkpoint",
    "list_runs": "runs",
    "run_many": "many",
}
_MODULES = frozenset({"checkpoint", "jobs", "telemetry", "testing"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_MODULES})
