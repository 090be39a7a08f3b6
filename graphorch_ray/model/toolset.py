"""The HTTP call behind ``ToolSetNode``."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..state import State
from .trail import note

__all__ = ["HttpxModule", "ToolSetCall"]

TIMEOUT = 10.0  # seconds


def _is_genuine(client: Any) -> bool:
    """Whether it is the library's client, not one that a test put in its place."""
    return getattr(client, "__module__", "").partition(".")[0] == "httpx"


def _trust(url: str) -> Any:
    """What to verify certificates with: nothing where the protocol has none."""
    return _certificates() if url.startswith("https:") else False


@cache
def _certificates() -> Any:
    import httpx

    return httpx.create_ssl_context()


def _without_secrets(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class HttpxModule:
    """A class attribute that imports :mod:`httpx` when it is first read, not before."""

    def __get__(self, instance: object, owner: type) -> Any:
        """Return the module."""
        import httpx

        return httpx


class ToolSetCall:
    """The action of one ``ToolSetNode``; an object and no closure, so that it can be pickled."""

    is_node_action = True

    def __init__(self, base_url: str, tool_name: str, owner: Any) -> None:
        """Keep the address; ``owner.httpx`` is where the client comes from at each call."""
        self.url = f"{base_url}/tools/{tool_name}"
        self.owner = owner
        self.__name__ = tool_name

    async def __call__(self, state: State) -> State:
        """Post the messages, check the status, and read the messages that come back."""
        httpx = self.owner.httpx
        # A client of its own for each call, but not a certificate store: loading one takes longer
        # than most calls, and blocks the event loop.
        options = {"verify": _trust(self.url)} if _is_genuine(httpx.AsyncClient) else {}
        told = {"tool_name": self.__name__, "url": _without_secrets(self.url)}
        note("tool_http_start", **told)
        async with httpx.AsyncClient(**options) as client:
            response = await client.post(
                self.url, json={"messages": state.messages}, timeout=TIMEOUT
            )
        response.raise_for_status()
        note("tool_http_success", **told, status_code=getattr(response, "status_code", 0))
        return State(messages=response.json().get("messages", []))
