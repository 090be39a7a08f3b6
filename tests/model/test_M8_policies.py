"""M8: policies, options and errors."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
from fractions import Fraction

import cloudpickle
import numpy as np
import pytest

import graphorch_ray.errors as errors_module
from graphorch_ray.errors import (
    CheckpointConflictError,
    CheckpointError,
    ClusterConnectionError,
    GraphConfigurationError,
    GraphExecutionError,
    GraphOrchestratorException,
    GraphWarning,
    InvalidNodeActionOutput,
    NodeTimeoutError,
    SerializationError,
)
from graphorch_ray.policies import LONGEST_DELAY, NodeOptions, RetryPolicy

# --- RetryPolicy --------------------------------------------------------------------------------


def test_M8_a_policy_has_the_originals_defaults_and_order():
    policy = RetryPolicy()
    assert (policy.max_retries, policy.delay, policy.backoff) == (3, 1.0, 2.0)
    assert (policy.max_delay, policy.jitter, policy.retry_on) == (None, 0.0, None)
    assert RetryPolicy(5, 0.1, 1) == RetryPolicy(max_retries=5, delay=0.1, backoff=1)


def test_M8_zeros_are_legal():
    policy = RetryPolicy(0, 0, 0)
    assert [policy.delay_before(retry) for retry in range(3)] == [0, 0, 0]


def test_M8_further_fields_are_keyword_only():
    with pytest.raises(TypeError):
        RetryPolicy(1, 1, 1, 5)


def test_M8_a_policy_shows_itself_as_in_the_original():
    assert str(RetryPolicy(5, 0.1, 1)) == "RetryPolicy(max_retries=5, delay=0.10s, backoff=1.00x)"
    assert repr(RetryPolicy(1, 1, 1, jitter=0.5)).endswith("backoff=1.00x, jitter=0.5)")


def test_M8_a_policy_is_frozen_and_travels():
    policy = RetryPolicy(2, max_delay=3, retry_on=(ValueError, OSError))
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.delay = 3
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_M8_waits_grow_by_backoff_up_to_max_delay():
    assert [RetryPolicy(9, 0.5, 2).delay_before(n) for n in range(4)] == [0.5, 1, 2, 4]
    assert [RetryPolicy(9, 1, 3, max_delay=5).delay_before(n) for n in range(4)] == [1, 3, 5, 5]
    assert [RetryPolicy(9, 1, 0).delay_before(n) for n in range(3)] == [1, 0, 0]


def test_M8_waits_never_overflow():
    assert RetryPolicy(delay=1, backoff=10).delay_before(10_000) == LONGEST_DELAY
    assert RetryPolicy(delay=1, backoff=10, max_delay=60).delay_before(10_000) == 60
    assert RetryPolicy(delay=0, backoff=10).delay_before(10_000) == 0
    assert RetryPolicy(delay=1e300, backoff=1e300).delay_before(1) == LONGEST_DELAY
    with pytest.raises(ValueError, match="counts from 0"):
        RetryPolicy().delay_before(-1)


class Flaky(OSError):
    pass


def test_M8_retry_on_chooses_by_class():
    policy = RetryPolicy(retry_on=(OSError, KeyError))
    assert policy.retries(Flaky())
    assert policy.retries(KeyError())
    assert not policy.retries(ValueError())
    assert RetryPolicy(retry_on=OSError).retries(Flaky())
    assert RetryPolicy().retries(SystemExit())


def test_M8_retry_on_chooses_by_name_where_the_exception_could_not_travel():
    names = tuple(f"{cls.__module__}.{cls.__qualname__}" for cls in Flaky.__mro__)
    assert RetryPolicy(retry_on=OSError).retries(None, names)
    assert RetryPolicy(retry_on=(KeyError, Flaky)).retries(None, names)
    assert not RetryPolicy(retry_on=KeyError).retries(None, names)
    assert RetryPolicy().retries(None, ())


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"max_retries": -1}, ValueError, r"RetryPolicy.max_retries .* >= 0, not -1"),
        ({"max_retries": 1.5}, TypeError, r"max_retries must be a whole number >= 0, not 1.5"),
        ({"max_retries": True}, TypeError, "max_retries must be a whole number"),
        ({"delay": -0.1}, ValueError, r"delay must be a finite number >= 0, not -0.1"),
        ({"delay": "1"}, TypeError, r"delay must be a number >= 0, not '1' \(str\)"),
        ({"delay": math.nan}, ValueError, "delay must be a number >= 0, not nan"),
        ({"delay": math.inf}, ValueError, "delay must be a finite number"),
        ({"backoff": -1}, ValueError, "backoff must be a finite number >= 0, not -1"),
        ({"max_delay": -1}, ValueError, "max_delay must be a finite number >= 0, not -1"),
        ({"jitter": 1.5}, ValueError, "jitter must be from 0 to 1, not 1.5"),
        ({"jitter": -0.5}, ValueError, "jitter must be from 0 to 1, not -0.5"),
        ({"retry_on": "ValueError"}, TypeError, "retry_on must be an exception class"),
        ({"retry_on": (ValueError, 3)}, TypeError, "retry_on must be an exception class.*not 3"),
        ({"retry_on": ()}, ValueError, "retry_on is empty.*use max_retries=0"),
    ],
)
def test_M8_a_policy_checks_its_fields(fields, error, text):
    with pytest.raises(error, match=text):
        RetryPolicy(**fields)


def test_M8_numbers_of_other_kinds_are_numbers():
    policy = RetryPolicy(np.int64(2), np.float64(0.5), Fraction(3, 2), retry_on=[KeyError])
    assert policy.delay_before(1) == 0.75
    assert policy.retry_on == (KeyError,)


# --- NodeOptions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"num_cpus": -1}, ValueError, "NodeOptions.num_cpus must be a finite number >= 0, not -1"),
        ({"num_cpus": "2"}, TypeError, "num_cpus must be a number >= 0, not '2'"),
        ({"num_cpus": 0.00001}, ValueError, "num_cpus must be 0 or at least 0.0001"),
        ({"num_gpus": 1.5}, ValueError, "num_gpus must be whole above 1, not 1.5"),
        ({"memory": 0}, ValueError, "memory must be a number of bytes > 0, not 0"),
        ({"resources": ["a"]}, TypeError, "resources must be a dict or None"),
        ({"resources": {"CPU": 1}}, ValueError, "holds 'CPU'; use num_cpus= for that"),
        ({"resources": {"disk": -1}}, ValueError, r"resources\['disk'\] must be a finite"),
        ({"timeout": 0}, ValueError, "timeout must be a number of seconds > 0"),
        ({"timeout": math.inf}, ValueError, "timeout must be a number of seconds > 0, or None"),
        ({"mutable": 1}, TypeError, "mutable must be True or False, not 1"),
        ({"batch": None}, TypeError, "batch must be True or False, not None"),
        ({"replicas": 0}, ValueError, "replicas must be a whole number >= 1, not 0"),
        ({"replicas": 1.5}, TypeError, "replicas must be a whole number >= 1, not 1.5"),
    ],
)
def test_M8_options_check_their_fields(fields, error, text):
    with pytest.raises(error, match=text):
        NodeOptions(**fields)


def test_M8_options_are_frozen_merged_and_pickled():
    options = NodeOptions(num_cpus=0.5, resources={"disk": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.num_cpus = 3
    merged = options.merged(num_cpus=2, timeout=3)
    assert merged == NodeOptions(num_cpus=2, resources={"disk": 1}, timeout=3)
    assert options.merged() is options
    assert pickle.loads(pickle.dumps(merged)) == merged
    with pytest.raises(TypeError, match="unknown option 'cpus'"):
        options.merged(cpus=1)


def test_M8_options_keep_their_own_copy_of_a_mapping():
    given = {"disk": 1}
    options = NodeOptions(resources=given)
    given["disk"] = 5
    assert options.resources == {"disk": 1}


def test_M8_explicit_resources_are_the_fields_about_where_to_run():
    for fields in (
        {"num_cpus": 0},
        {"num_gpus": 1},
        {"memory": 1},
        {"resources": {}},
        {"label_selector": {}},
        {"runtime_env": {}},
        {"scheduling_strategy": "SPREAD"},
    ):
        assert NodeOptions(**fields).explicit_resources
    assert not NodeOptions(timeout=1, mutable=True, batch=False, replicas=2).explicit_resources


# --- errors -------------------------------------------------------------------------------------

MADE = {
    "AggregatorActionNotDecorated": (len,),
    "ClusterConnectionError": ("ray://x:1", "refused"),
    "DuplicateNodeError": ("a",),
    "EdgeExistsError": ("a", "b"),
    "EmptyToolNodeDescriptionError": (len,),
    "GraphConfigurationError": ("bad",),
    "GraphExecutionError": ("a", "bad"),
    "InvalidAIActionOutput": (3,),
    "InvalidAggregatorActionError": (3,),
    "InvalidNodeActionOutput": (3,),
    "InvalidRoutingFunctionOutput": (3,),
    "InvalidToolMethodOutput": (3,),
    "JobFailedError": ("raysubmit_1", "FAILED", "no luck", 1),
    "NodeActionNotDecoratedError": (len,),
    "NodeNotFoundError": ("a",),
    "NodeTimeoutError": ("a", 2.5),
    "RemoteError": ("x.Gone", "lost"),
    "ResourceRequestError": ("a", {"CPU": 99}, {"CPU": 2}),
    "RoutingFunctionNotDecoratedError": (len,),
    "RunLostError": ("nightly", "its machine died", "nothing is left"),
    "RunNotFoundError": ("nightly", "it ended"),
    "SerializationError": ("a lock", "node 'a'"),
    "ToolMethodNotDecorated": (len,),
    "WorkerLostError": ("a", "killed", 4),
}
ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors_module, inspect.isclass)
    if issubclass(kind, GraphOrchestratorException)
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("library", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_M8_every_error_travels_with_its_text_attributes_and_notes(kind, library):
    error = kind(*MADE.get(kind.__name__, ("text",)))
    error.add_note("a note")
    again = library.loads(library.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.args == error.args
    assert again.__dict__ == error.__dict__
    assert again.__notes__ == ["a note"]


def test_M8_the_tree_in_the_docstring_names_every_error():
    for kind in [*ERRORS, GraphWarning]:
        assert kind.__name__ in errors_module.__doc__
        assert kind.__name__ in errors_module.__all__


def test_M8_errors_keep_their_attributes():
    error = GraphExecutionError("a", "bad", run_id="r", superstep=2, attempt=1)
    assert (error.node_id, error.message) == ("a", "bad")
    assert (error.run_id, error.superstep, error.attempt) == ("r", 2, 1)
    assert str(error) == "Execution failed at node 'a': bad"
    assert GraphExecutionError(node_id="a", message="bad").run_id is None
    assert str(GraphConfigurationError("bad")) == "Graph configuration error: bad"
    timeout = NodeTimeoutError("a", 2.5)
    assert (timeout.node_id, timeout.timeout) == ("a", 2.5)
    assert isinstance(timeout, TimeoutError)
    lost = ClusterConnectionError("ray://x:1", "refused")
    assert (lost.address, lost.reason) == ("ray://x:1", "refused")
    assert isinstance(lost, ConnectionError)
    assert SerializationError("a lock", "here").where == "here"
    assert issubclass(CheckpointConflictError, CheckpointError)
    assert issubclass(GraphWarning, UserWarning)


def test_M8_a_result_that_cannot_be_shown_is_still_named():
    class Silent:
        def __str__(self):
            raise RuntimeError("no")

    assert "got Silent: <" in str(InvalidNodeActionOutput(Silent()))
