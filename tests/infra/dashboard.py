"""What a Ray dashboard answers to whom."""

import urllib.error
import urllib.request

PATHS = ("/api/v0/actors", "/api/jobs/", "/api/cluster_status", "/nodes?view=summary")
"""The state of the cluster, and the way to run code on it."""


def statuses(dashboard: str, token: str | None = None) -> dict[str, int]:
    """HTTP status by path, with the token or without one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return {path: _status(urllib.request.Request(dashboard + path, headers=headers)) for path in PATHS}


def _status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
