"""Connections between the driver and its warm workers: bytes there and back, beside Ray.

A call of Ray and its answer take one to two milliseconds; a frame over a connection that is open
takes a tenth of that. Ray still starts the process, gives it its resources and tells of its end.

A worker that is started is told where the driver listens, and a secret that only Ray has carried:
each end shows its half before the other reads a word. Frames have eight bytes of length.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

HELLO_SECONDS = 10.0
"""How long a worker has to connect, and whoever connects to say who it is."""

_HALF = 32  # bytes of secret that each end shows
_LENGTH = 8
_GREETING = _HALF + _LENGTH


class Address(NamedTuple):
    """Where a worker finds its driver, and what it says there."""

    host: str
    port: int
    number: int
    secret: bytes


class Peer(Protocol):
    """Who is told what comes over a connection."""

    def connected(self, connection: Connection) -> None:
        """The worker is there, and may be sent frames."""

    def received(self, frame: bytes) -> None:
        """The worker has sent a frame."""

    def hung_up(self) -> None:
        """Nothing more will come."""


class Connection(asyncio.Protocol):
    """The driver's end."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._peer: Peer | None = None
        self._buffer = bytearray()
        self._transport: Any = None
        self._patience: asyncio.TimerHandle | None = None

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        self._transport.write(len(frame).to_bytes(_LENGTH, "big") + frame)

    def close(self) -> None:
        """Let the worker see the end at once, even if this event loop does not go on."""
        self._peer = None
        with contextlib.suppress(OSError):
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(HELLO_SECONDS, transport.abort)  # type: ignore[attr-defined]
        self._exchange.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._exchange.connections.discard(self)
        if self._patience is not None:
            self._patience.cancel()
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.hung_up()

    def data_received(self, data: bytes) -> None:
        """Take in what was sent."""
        buffer = self._buffer
        buffer += data
        if self._patience is not None:
            if len(buffer) < _GREETING:
                return
            greeting = bytes(buffer[:_GREETING])
            del buffer[:_GREETING]
            peer = self._exchange.admit(greeting)
            if peer is None:
                self._transport.abort()
                return
            self._patience.cancel()
            self._patience, self._peer = None, peer
            self._transport.write(self._exchange.answer)
            peer.connected(self)
        while self._peer is not None and len(buffer) >= _LENGTH:
            end = _LENGTH + int.from_bytes(buffer[:_LENGTH], "big")
            if len(buffer) < end:
                return
            frame = bytes(buffer[_LENGTH:end])
            del buffer[:end]
            self._peer.received(frame)


class Exchange:
    """Where the workers of one run connect to. Listens once the first of them is expected.

    Attributes:
        usable: connections can be made, as far as is known.
        connections: those that are open.
        answer: what a worker that is admitted is shown.
    """

    def __init__(self) -> None:
        # What Ray would encrypt is not sent in the clear here.
        self.usable = os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true")
        self.connections: set[Connection] = set()
        self._secret = secrets.token_bytes(2 * _HALF)
        self.answer = self._secret[_HALF:]
        self._expected: dict[int, Peer] = {}
        self._numbers = 0
        self._socket: socket.socket | None = None
        self._opening: asyncio.Task[asyncio.Server] | None = None

    def address(self) -> Address | None:
        """Where the next worker is to connect; None where it cannot."""
        if self._socket is None and self.usable:
            self._listen()
        if self._socket is None or not self.usable:
            return None
        self._numbers += 1
        host, port = self._socket.getsockname()[:2]
        return Address(host, port, self._numbers, self._secret)

    def expect(self, address: Address, peer: Peer) -> None:
        """Admit whoever comes by this address, and tell this one what is said."""
        self._expected[address.number] = peer

    def forget(self, address: Address) -> None:
        """Nobody is expected any more under this address."""
        self._expected.pop(address.number, None)

    def admit(self, greeting: bytes) -> Peer | None:
        """Whose worker says this; None where it is nobody's."""
        if not hmac.compare_digest(greeting[:_HALF], self._secret[:_HALF]):
            return None
        return self._expected.pop(int.from_bytes(greeting[_HALF:], "big"), None)

    def _listen(self) -> None:
        """On the address by which Ray knows this machine, and no other."""
        import ray

        host = ray.util.get_node_ip_address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, 0), family=family)
        except OSError:  # it is no address of this machine's own
            self.usable = False
            return
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(
            loop.create_server(lambda: Connection(self), sock=self._socket)
        )

    async def close(self) -> None:
        """Hang up, and listen no more."""
        self.usable = False
        self._expected.clear()
        if self._opening is not None:
            opening, self._opening = self._opening, None
            with contextlib.suppress(OSError):
                (await opening).close()
        if self._socket is not None:
            self._socket.close()
        while self.connections:  # the loop lets go of what is aborted as soon as it comes to it
            for connection in list(self.connections):
                connection.close()
            await asyncio.sleep(0)


class DriverLine:
    """The worker's end: frames from the driver, and to it.

    Args:
        address: where the driver is.

    Raises:
        OSError: nobody is there.
    """

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address[:2], timeout=HELLO_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)
        self._file = self._socket.makefile("rb")
        self._answer = address.secret[_HALF:]
        number = address.number.to_bytes(_LENGTH, "big")
        self._socket.sendall(address.secret[:_HALF] + number)

    def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            OSError: the driver has hung up. Only what was under way at that moment is lost unseen.
        """
        with contextlib.suppress(BlockingIOError):
            if not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise ConnectionAbortedError("the driver has hung up")
        self._socket.sendall(len(frame).to_bytes(_LENGTH, "big") + frame)

    def frames(self) -> Iterator[bytes]:
        """Wait for frames, until the driver hangs up."""
        with contextlib.suppress(OSError):
            if not hmac.compare_digest(self._file.read(_HALF), self._answer):
                return
            while len(length := self._file.read(_LENGTH)) == _LENGTH:
                nbytes = int.from_bytes(length, "big")
                frame = self._file.read(nbytes)
                if len(frame) < nbytes:
                    return
                yield frame

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()
