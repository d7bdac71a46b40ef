"""Proxy variables, kept away from this machine's own addresses."""

import os
from collections.abc import Iterable, Mapping

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def exceptions(variables: Mapping[str, str], hosts: Iterable[str] = ()) -> dict[str, str]:
    """`no_proxy` and `NO_PROXY` with loopback addresses and `hosts` added to what they name; empty without a proxy.

    Both spellings get the same list: programs differ in which of them they read.
    """
    if not any(variables.get(name) or variables.get(name.upper()) for name in PROXIES):
        return {}
    named = [*_entries(variables.get("no_proxy", "")), *_entries(variables.get("NO_PROXY", ""))]
    every = ",".join(dict.fromkeys([*named, *LOOPBACK, *hosts]))
    return {"no_proxy": every, "NO_PROXY": every}


def bypass_proxies(*hosts: str) -> None:
    """Let this process, its libraries and what it starts ask loopback addresses and `hosts` without a proxy."""
    os.environ.update(exceptions(os.environ, hosts))


def _entries(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]
