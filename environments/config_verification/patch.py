"""Applying the settings that an answer gives to a file, as data and nothing else.

A patch maps names of settings to new values; a dotted path counts by its last part. Each setting takes
values of its own kind only: nothing that a model writes becomes a comment (checkov obeys `checkov:skip`),
an expression, or a path that somebody reads.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from environments.config_verification.rules import KUBERNETES, TERRAFORM, Kind, Settings

MAX_ENTRIES = 8
"""Entries of a patch beyond this are not looked at; a file has three problems at most."""

MAX_ITEMS = 8
"""Items that a list may have."""


def _text(pattern: str) -> Callable[[Any, Any], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value, old: isinstance(value, str) and compiled.fullmatch(value) is not None


def _list_of(pattern: str) -> Callable[[Any, Any], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return lambda value, old: (
        isinstance(value, list)
        and 0 < len(value) <= MAX_ITEMS
        and all(isinstance(item, str) and compiled.fullmatch(item) is not None for item in value)
    )


def _or_nothing(accepts: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, old: value is None or accepts(value, old)


def _flag(value: Any, old: Any) -> bool:
    return isinstance(value, bool)


def _port(value: Any, old: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def _same_image(value: Any, old: Any) -> bool:
    """Another tag of the image that runs."""
    name, _, tag = value.partition(":") if isinstance(value, str) else ("", "", "")
    return name == str(old).partition(":")[0] and re.fullmatch(r"[A-Za-z0-9_.-]{0,40}", tag) is not None


def _ranges(value: Any, old: Any) -> bool:
    """Address ranges, at least one: closing the port to everybody is no repair."""
    if not _list_of(r"[0-9./]{9,18}")(value, old):
        return False
    try:
        return all(ipaddress.ip_network(item) is not None for item in value)
    except ValueError:
        return False


_SETTINGS: dict[Kind, dict[str, Callable[[Any, Any], bool]]] = {
    KUBERNETES: {
        **dict.fromkeys(
            (
                "privileged",
                "hostNetwork",
                "hostPID",
                "allowPrivilegeEscalation",
                "runAsNonRoot",
                "readOnlyRootFilesystem",
                "automountServiceAccountToken",
            ),
            _or_nothing(_flag),
        ),
        "memory": _text(r"\d{1,5}(Mi|Gi|M|G)"),
        "cpu": _text(r"\d{1,5}m?|\d\.\d{1,3}"),
        "image": _same_image,
        "hostPort": _or_nothing(_port),
        "add": _or_nothing(_list_of(r"[A-Z_]{1,30}")),
        "path": _or_nothing(_text(r"/[\w./-]{0,60}")),
        "value": _or_nothing(_text(r"[\w.@!-]{1,40}")),
    },
    TERRAFORM: {
        **dict.fromkeys(
            (
                "enabled",
                "force_destroy",
                "encrypted",
                "storage_encrypted",
                "publicly_accessible",
                "deletion_protection",
                "associate_public_ip_address",
            ),
            _or_nothing(_flag),
        ),
        "acl": _text(r"private|public-read|public-read-write|authenticated-read|log-delivery-write"),
        "cidr_blocks": _ranges,
        "password": _text(r"[\w.@!-]{1,40}"),
        "Action": _list_of(r"\*|[a-z0-9-]{1,20}:[A-Za-z*]{1,40}"),
        "http_tokens": _text(r"required|optional"),
    },
}

_WORDS = {"true": True, "false": False, "null": None}


def accepted(patch: Mapping[Any, Any], kind: Kind, settings: Settings) -> Settings:
    """The entries of a patch that can be applied: known settings of this file, values of the right kind.

    `settings` are those of the file; a setting of the kind that it does not carry yet may be added where
    the file has a place for it, which are the settings whose name is in `settings`, if only with None.
    """
    taken: Settings = {}
    for path, value in list(patch.items())[:MAX_ENTRIES]:
        name = str(path).rpartition(".")[2].strip()
        value = _WORDS.get(value, value) if isinstance(value, str) else value
        accepts = _SETTINGS[kind].get(name)
        if accepts is not None and name in settings and accepts(value, settings[name]):
            taken[name] = value
    return taken
