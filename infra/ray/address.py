"""Where a cluster is, whether it answers, and whether it asks for the token."""

import os
import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

KNOCK_SECONDS = 10.0

GUARDED = ("/api/v0/nodes", "/api/jobs/")
"""What must not answer without the token: the state of the cluster, and the way to run code on it."""


def address_of(named: str | None) -> str:
    """The address that the config names, or RAY_ADDRESS, or `auto`: Ray looks for a cluster on this machine."""
    return named or os.environ.get("RAY_ADDRESS") or "auto"


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
    """The address of what the dashboard (`http://host:port`) tells to anybody; None where it asks for a token.

    Raises:
        OSError: it cannot be asked.
    """
    for path in GUARDED:
        try:
            with urllib.request.urlopen(dashboard + path, timeout=KNOCK_SECONDS):
                return dashboard + path
        except urllib.error.HTTPError:
            continue
    return None


def open_to_anybody(address: str) -> str:
    """What is said of a cluster that `answers_without_token`."""
    return (
        f"{address} answers without a token: whoever reaches it may run code on the cluster. Start the cluster with "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or write infra.require_token = false"
    )
