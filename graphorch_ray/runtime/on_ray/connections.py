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

CONNECT_SECONDS = 1.0
"""How long a worker tries to connect, before it runs what it was sent."""

HELLO_SECONDS = 10.0
"""How long whoever connects may take to say who it is."""

MOST_STRANGERS = 100
"""Connections at once whose other end has not said who it is."""

SILENCE_SECONDS = 30
"""About how long an end that has vanished without a word is waited for."""

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


def _watch(line: socket.socket) -> None:
    """Have the system notice where the other end is gone without a word."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    third = SILENCE_SECONDS // 3
    for name, value in (
        ("TCP_KEEPIDLE", third),
        ("TCP_KEEPALIVE", third),  # the same, on macOS
        ("TCP_KEEPINTVL", third // 2),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", SILENCE_SECONDS * 1000),
    ):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


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
        if not self._transport.is_closing():
            with contextlib.suppress(OSError), self._own_socket() as line:
                line.shutdown(socket.SHUT_RDWR)
        self._transport.abort()

    def _own_socket(self) -> socket.socket:
        """The transport's socket once more: what an event loop shows of it may not do much."""
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = transport
        exchange = self._exchange
        if not exchange.usable or exchange.strangers >= MOST_STRANGERS:
            self._transport.abort()
            return
        with self._own_socket() as line:
            _watch(line)
        exchange.connections.add(self)
        exchange.strangers += 1
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(HELLO_SECONDS, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._exchange.connections.discard(self)
        self._is_known()
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.hung_up()

    def _is_known(self) -> None:
        """No stranger any more."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
            self._exchange.strangers -= 1

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
            self._is_known()
            self._peer = peer
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
        strangers: how many of them have not said who they are.
        answer: what a worker that is admitted is shown.
    """

    def __init__(self) -> None:
        # What Ray would encrypt is not sent in the clear here.
        self.usable = os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true")
        self.connections: set[Connection] = set()
        self.strangers = 0
        self._secret = secrets.token_bytes(2 * _HALF)
        self.answer = self._secret[_HALF:]
        self._expected: dict[int, Peer] = {}
        self._numbers = 0
        self._socket: socket.socket | None = None
        self._opening: asyncio.Task[asyncio.Server] | None = None

    def address(self) -> Address | None:
        """Where the next worker is to connect; None where it cannot."""
        if not self.usable:
            return None
        if self._socket is None:
            self._listen()
        if self._socket is None:
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
        self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[asyncio.Server]) -> None:
        """Where it does not listen after all, nobody is to wait for an answer."""
        if opening.cancelled() or opening.exception() is not None:
            self.usable = False
            if self._socket is not None:
                self._socket.close()

    async def close(self) -> None:
        """Hang up, and listen no more."""
        self.usable = False
        self._expected.clear()
        if self._opening is not None:
            await asyncio.wait([self._opening])
            if not self._opening.cancelled() and self._opening.exception() is None:
                self._opening.result().close()
            self._opening = None
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
        self._socket = socket.create_connection(address[:2], timeout=CONNECT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _watch(self._socket)
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
