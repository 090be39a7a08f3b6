"""Nodes for the tests of telemetry; a module of its own, for workers import it on their loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager

import httpx
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
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


@contextmanager
def httpx_instrumented():
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument()
    try:
        yield
    finally:
        instrumentor.uninstrument()


@node_action
def fetches(state):
    with httpx_instrumented(), httpx.Client(trust_env=False) as client:
        return State([client.get(state.messages[0]).text])


@node_action
async def fetches_async(state):
    with httpx_instrumented():
        async with httpx.AsyncClient(trust_env=False) as client:
            return State([(await client.get(state.messages[0])).text])


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


@node_action
def tells_secret(state):
    token = state.messages[0]
    with TRACER.start_as_current_span("own") as span:
        span.set_attributes({"user.token": token, "user.header": f"Bearer {token}"})
    raise ValueError(f"could not log in with {token}")


@node_action
def warns(state):
    logging.getLogger("my.node").warning("careful with %s", "this")
    return state
