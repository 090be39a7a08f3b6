"""A job that was submitted: following it, fetching what it made, stopping it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ClusterConnectionError, GraphExecutionError, JobFailedError
from .connecting import connect, job_server
from .inside import RESULT, deposit_of

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""The states that a job does not leave."""

LOST_SECONDS = 30.0
"""How long the job server may be away while a job is followed."""

FETCH_SECONDS = 20.0
"""How long a cluster may take to hand out a file that is there."""

POLL_SECONDS = 0.5

METADATA = "graphorch_ray"
"""The key under which a job carries what `attach` has to know."""


class JobHandle:
    """A job on a cluster. Made by `submit` and `attach`.

    Attributes:
        job_id: its name.
        address: the URL of the cluster's job server.
        writes: by option, the client's file that a run's output, report or trace is meant for.
    """

    def __init__(self, client: JobSubmissionClient, job_id: str, writes: Mapping[str, str]) -> None:
        self.job_id = job_id
        self.address: str = client.get_address()
        self.writes = dict(writes)
        self._client = client

    def __repr__(self) -> str:
        """Show how to make another handle of the same job."""
        return f"attach({self.job_id!r}, address={self.address!r})"

    def status(self) -> str:
        """How it stands: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``."""
        return str(self.details().status.value)

    def exit_code(self) -> int | None:
        """The exit code of its command; None before its end, and where it was killed."""
        code: int | None = self.details().driver_exit_code
        return code

    def logs(self) -> str:
        """What it has written so far, standard output and error together."""
        text: str = self._client.get_job_logs(self.job_id)
        return text

    def follow(self) -> Iterator[str]:
        """Give what it writes, from its beginning, until it ends.

        A connection that breaks is made anew. The job does not notice whether it is followed.

        Raises:
            ClusterConnectionError: the job server was away for `LOST_SECONDS`.
        """
        seen = 0
        lost: float | None = None
        while True:
            try:
                for chunk in self._tail():
                    lost = None
                    new, seen = chunk[0][max(0, seen - chunk[1]) :], max(seen, sum(chunk[1:]))
                    if new:
                        yield new
                if self.status() in ENDED:
                    rest = self.logs()[seen:]
                    if rest:
                        yield rest
                    return
            except (OSError, RuntimeError) as error:
                now = time.monotonic()
                lost = now if lost is None else lost
                if now - lost > LOST_SECONDS:
                    raise ClusterConnectionError(
                        self.address,
                        f"the job server has not answered for {LOST_SECONDS:.0f} s. The job may "
                        f"go on: {self!r} finds it again while its cluster is up",
                    ) from error
            time.sleep(POLL_SECONDS)

    def _tail(self) -> Iterator[tuple[str, int, int]]:
        """Give chunks of the log from its beginning: the text, where it begins, its length."""
        loop = asyncio.new_event_loop()
        chunks: Any = self._client.tail_job_logs(self.job_id)
        at = 0
        try:
            while True:
                try:
                    text: str = loop.run_until_complete(anext(chunks))
                except StopAsyncIteration:
                    return
                yield text, at, len(text)
                at += len(text)
        finally:
            with contextlib.suppress(Exception):
                loop.run_until_complete(chunks.aclose())
            loop.close()

    def wait(self, timeout: float | None = None) -> str:
        """Wait for its end.

        Args:
            timeout: seconds, or None for as long as it takes.

        Returns:
            Its status.

        Raises:
            TimeoutError: it had not ended in time; it goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.status()) not in ENDED:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"Job '{self.job_id}' is still {status} after {timeout} s")
            time.sleep(POLL_SECONDS)
        return status

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for its end, and give what `run --json` prints: the final state, and facts.

        Args:
            timeout: as for `wait`.

        Raises:
            GraphExecutionError: a node failed, with the node's own error as its message.
            JobFailedError: it ended in another way.
            TimeoutError: it had not ended in time.
        """
        status = self.wait(timeout)
        document = self.document()
        if document is not None and "error" not in document:
            return document
        error = {} if document is None else document["error"]
        if error.get("type") == "GraphExecutionError":
            node_id = error["node_id"]
            message = str(error["message"]).partition(f"node '{node_id}': ")[2]
            raise GraphExecutionError(
                node_id, message, run_id=error.get("run_id"), superstep=error.get("superstep")
            )
        info = self.details()
        told = error.get("message") or str(info.message or "it left no result")
        raise JobFailedError(self.job_id, status, told, info.driver_exit_code)

    def document(self) -> dict[str, Any] | None:
        """What its command printed with `--json`, an error included; None where it did not."""
        with contextlib.suppress(FileNotFoundError):
            text = self._fetch(RESULT)
            if text:
                found: dict[str, Any] = json.loads(text)
                return found
        return None

    def fetch(self, option: str, path: str | None = None) -> str:
        """Fetch a file that the run wrote.

        Args:
            option: which: ``"output"``, ``"report"`` or ``"trace"``, where the run had that option.
            path: where to; default: what the option said.

        Returns:
            Where it is now.

        Raises:
            FileNotFoundError: the run has not written it.
            KeyError: the run did not have that option.
        """
        target = Path(path or self.writes[option])
        target.write_bytes(self._fetch(f"{option}{Path(self.writes[option]).suffix}"))
        return str(target)

    def stop(self) -> bool:
        """Have it stopped: the run is cancelled, and killed where that takes more than 3 s.

        Returns:
            Whether it was running.
        """
        stopped: bool = self._client.stop_job(self.job_id)
        return stopped

    def details(self) -> Any:
        """All that Ray says of it: a `ray.job_submission.JobDetails`."""
        return self._client.get_job_info(self.job_id)

    def _fetch(self, name: str) -> bytes:
        """Fetch a file of the job's deposit.

        Raises:
            FileNotFoundError: the job has left none of that name.
            ClusterConnectionError: the cluster did not hand it out in `FETCH_SECONDS`.
        """
        node = self.details().driver_node_id
        if node is None:
            raise FileNotFoundError(f"Job '{self.job_id}' never began")
        asked = {
            "node_id": node,
            "filename": f"{deposit_of(self.job_id)}/{name}",
            "lines": -1,
        }
        end = time.monotonic() + FETCH_SECONDS
        while True:
            try:
                answer = self._client._do_request("GET", "/api/v0/logs/file", params=asked)
                told = str(answer.text)
                if answer.status_code == 200:
                    content: bytes = answer.content
                    return content
            except OSError as error:
                told = str(error)
            if "file is not found" in told:
                raise FileNotFoundError(f"Job '{self.job_id}' has left no {name}")
            if time.monotonic() > end:
                raise ClusterConnectionError(
                    self.address, f"it does not hand out {name} of job '{self.job_id}' ({told})"
                )
            time.sleep(POLL_SECONDS)


def attach(job_id: str, *, address: str | None = None) -> JobHandle:
    """Find a job again.

    Args:
        job_id: its name.
        address: the cluster's job server, as for `submit`.

    Raises:
        ClusterConnectionError: the server cannot be reached.
        LookupError: it knows no such job.

    Example:
        ```python
        for text in attach("nightly", address="http://10.0.0.1:8265").follow():
            print(text, end="")
        ```
    """
    client = connect(address)
    try:
        info = client.get_job_info(job_id)
    except RuntimeError as error:
        known = [job.submission_id for job in client.list_jobs() if job.submission_id]
        hint = f"it knows {', '.join(known[-5:])}" if known else "it knows none"
        raise LookupError(f"There is no job '{job_id}' at {job_server(address)}: {hint}") from error
    told = (info.metadata or {}).get(METADATA)
    return JobHandle(client, job_id, json.loads(told)["writes"] if told else {})
