"""How an ending travels: the exception with its cause, or what stands for them."""

from __future__ import annotations

import pickle
import threading

from graphorch_ray import GraphExecutionError, RemoteError
from graphorch_ray.runs.ending import failed


def test_an_exception_arrives_with_attributes_notes_and_cause():
    error = GraphExecutionError("n", "no luck", run_id="r", superstep=3, attempt=1)
    error.add_note("In node 'n': ...")
    error.__cause__ = KeyError("k")
    arrived = pickle.loads(pickle.dumps(failed(error, 7.0)))
    told = arrived.exception()
    assert (type(told), str(told)) == (GraphExecutionError, str(error))
    assert (told.node_id, told.superstep, told.__notes__) == ("n", 3, ["In node 'n': ..."])
    assert (type(told.__cause__), told.__cause__.args) == (KeyError, ("k",))
    assert (arrived.state, arrived.at, arrived.text) == ("failed", 7.0, str(error))


def test_what_cannot_travel_is_stood_for():
    class Local(Exception):
        pass

    error = GraphExecutionError("n", "no luck")
    error.__cause__ = Local(threading.Lock())
    told = pickle.loads(pickle.dumps(failed(error, 0.0))).exception()
    assert isinstance(told.__cause__, RemoteError)
    assert told.__cause__.type_name == "Local"
