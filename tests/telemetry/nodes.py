"""Nodes for the tests of telemetry; a module of its own, for workers import it on their loop."""

from __future__ import annotations

import asyncio
import logging

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from graphorch_ray import State, node_action
from tests.runtime.nodes import killed_once, once

TRACER = trace.get_tracer("users.own", "1.2")


@node_action
def sync_node(state):
    with TRACER.start_as_current_span("outer", attributes={"k": 1}) as outer:
        outer.add_event("seen", {"n": 2})
        with TRACER.start_as_current_span("inner", kind=SpanKind.CLIENT):
            pass
    trace.get_current_span().set_attribute("gen_ai.request.model", "m")
    trace.get_current_span().add_event("own event")
    return state


@node_action
async def async_node(state):
    with TRACER.start_as_current_span("outer", attributes={"k": 1}) as outer:
        outer.add_event("seen", {"n": 2})
        with TRACER.start_as_current_span("inner", kind=SpanKind.CLIENT):
            pass
    trace.get_current_span().set_attribute("gen_ai.request.model", "m")
    trace.get_current_span().add_event("own event")
    return state


@node_action
def retried(state):
    if once(state.messages[0] + ".retried"):
        raise ValueError("again")
    return state


@node_action
def killed(state):
    return killed_once(State([state.messages[0] + ".killed"]))


@node_action
async def too_long(state):
    if once(state.messages[0] + ".long"):
        await asyncio.sleep(600)
    return state


@node_action
def logs(state):
    logging.getLogger("my.node").info("hello from %s", "a node")
    return state
