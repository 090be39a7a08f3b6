"""The HTTP call behind ``ToolSetNode``."""

from __future__ import annotations

from typing import Any

from ..state import State

__all__ = ["HttpxModule", "ToolSetCall"]

TIMEOUT = 10.0  # seconds


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
        async with self.owner.httpx.AsyncClient() as client:
            response = await client.post(
                self.url, json={"messages": state.messages}, timeout=TIMEOUT
            )
        response.raise_for_status()
        return State(messages=response.json().get("messages", []))
