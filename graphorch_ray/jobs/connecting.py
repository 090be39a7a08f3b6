"""Reaching a cluster's job server, with a deadline and one clear sentence where it fails."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from ..errors import ClusterConnectionError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Names the job server where no address is given; Ray's own variable for that."""

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

CONNECT_SECONDS = 5.0
"""How long the server has to answer the first question."""

REQUEST_SECONDS = 60.0
"""How long it has to answer any other."""

_environment = threading.Lock()

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


def job_server(address: str | None) -> str:
    """The URL of the job server: what is given, else `RAY_API_SERVER_ADDRESS`, else port 8265 here.

    Raises:
        ClusterConnectionError: it is an address of another kind.
    """
    named = (address or os.environ.get(ADDRESS_VARIABLE, "").strip() or DEFAULT_ADDRESS).rstrip("/")
    if named == "auto":
        raise ClusterConnectionError(
            named, "give the job server's own address, for example http://10.0.0.1:8265"
        )
    if named.startswith("ray://"):
        raise ClusterConnectionError(
            named,
            "that is a Ray Client address; jobs are submitted to the dashboard's port, for example "
            "http://10.0.0.1:8265",
        )
    return named if "://" in named else f"http://{named}"


def connect(address: str | None) -> JobSubmissionClient:
    """A client of the job server at an address.

    Raises:
        ClusterConnectionError: nothing answers there in time, it is no job server, or it does not
            accept the token; says what to do.
        ImportError: ``ray[default]`` is not installed.
    """
    try:
        import aiohttp  # noqa: F401  # Ray's client needs it, and says so only when logs are followed
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ImportError(
            f"Ray jobs need more of Ray: pip install 'graphorch-ray[jobs]' ({error})"
        ) from error
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    url = job_server(address)
    check_server(url)

    class Client(JobSubmissionClient):
        """Ray's client waits for ever by default."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            options.setdefault("timeout", REQUEST_SECONDS)
            return super()._do_request(method, endpoint, **options)

    with _environment:  # the variable wins over the argument, and RAY_ADDRESS does, too
        before = os.environ.get(ADDRESS_VARIABLE)
        os.environ[ADDRESS_VARIABLE] = url
        try:
            return Client(url)
        finally:
            if before is None:
                del os.environ[ADDRESS_VARIABLE]
            else:
                os.environ[ADDRESS_VARIABLE] = before


def check_server(url: str) -> dict[str, Any]:
    """Ask a job server for its version.

    Returns:
        What it says of itself: `ray_version` and more.

    Raises:
        ClusterConnectionError: as for `connect`.
    """
    import httpx
    from ray._private.authentication.http_token_authentication import (
        get_auth_headers_if_auth_enabled,
    )

    headers: dict[str, str] = get_auth_headers_if_auth_enabled({}) or {}
    try:
        answer = httpx.get(f"{url}/api/version", headers=headers, timeout=CONNECT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClusterConnectionError(
            url,
            f"no job server answers there ({str(error) or type(error).__name__}). Check the "
            "address (the dashboard's, port 8265 by default), that the head has ray[default], and "
            "that its port can be reached from here",
        ) from error
    if answer.status_code in (401, 403):
        what = "wants a token" if answer.status_code == 401 else "does not accept this token"
        raise ClusterConnectionError(
            url,
            f"the cluster {what}. Set RAY_AUTH_MODE=token, and the cluster's token in "
            "RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names (`ray get-auth-token` "
            "on the head prints it)",
        )
    try:
        facts: dict[str, Any] = answer.raise_for_status().json()
        facts["ray_version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        hint = "the port of the dashboard, 8265 by default, not the one that workers join"
        raise ClusterConnectionError(
            url, f"what answers there is no Ray job server ({error}); use {hint}"
        ) from error
    return facts
