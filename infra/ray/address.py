"""Where a cluster is, whether it answers, and whether it asks for the token."""

import os
import socket
from urllib.parse import urlsplit

from rezero_ray.host.direct_http import why_open

KNOCK_SECONDS = 10.0

GUARDED = ("/api/v0/nodes", "/api/jobs/")
"""What must not answer without the token: the state of the cluster, and the way to run code on it."""


def address_of(named: str | None) -> str:
    """The address that the config names, or RAY_ADDRESS, or `auto`: Ray looks for a cluster on this machine."""
    return named or os.environ.get("RAY_ADDRESS") or "auto"


def hosts_of(address: str) -> list[str]:
    """The host that an address names; none of `auto` and of what is no address."""
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return []
    return [] if host is None or host == "auto" else [host]


def knock(address: str, seconds: float = KNOCK_SECONDS) -> None:
    """Raises OSError or ValueError where nothing listens: Ray's own clients would try for minutes."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    if not parts.hostname or not parts.port:
        raise ValueError(f"{address} is not host:port")
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds):
        pass


def honour_token() -> None:
    """Send Ray's token where one is in the environment; Ray itself waits for RAY_AUTH_MODE=token, too.

    The token in `~/.ray`, which is this machine's, goes to no other cluster unless RAY_AUTH_MODE says so.
    """
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given and "RAY_AUTH_MODE" not in os.environ:
        from ray._private.authentication import authentication_token_setup

        authentication_token_setup._enable_token_auth()  # Ray has read the variables when it was imported


def answers_without_token(dashboard: str) -> str | None:
    """What must be taken for open of a dashboard (`http://host:port`), and why; None where it refuses all of GUARDED.

    It is asked without a proxy, and what cannot be told counts as open.
    """
    for path in GUARDED:
        why = why_open(dashboard + path, seconds=KNOCK_SECONDS)
        if why is not None:
            return f"{dashboard}{path} {why}"
    return None


def open_to_anybody(found: str) -> str:
    """What is said of a cluster of which `answers_without_token` has found this."""
    return (
        f"{found}: whoever reaches an open dashboard may run code on the cluster. Start the cluster with "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or write infra.require_token = false"
    )
