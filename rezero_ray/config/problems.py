"""What is wrong with a request: where it was written, what is allowed, what to write instead."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

KeyPath = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KEY_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[^.]+')

_SHOWN_VALUE_CHARACTERS = 60  # a longer value hides the sentence that follows it


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file (with line and column where known) or a command-line flag."""

    source: str
    line: int | None = None
    column: int | None = None

    def is_flag_of(self, key: str) -> bool:
        name = re.split(r"[ =]", self.source, maxsplit=1)[0].removeprefix("--").replace("-", "_")
        return self.source.startswith("--") and (key == name or key.endswith(f".{name}"))

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    `key` is dotted as a flag would write it (empty for a whole file), `others` are further keys that the
    problem depends on, `value` is the offending value as TOML would show it.
    """

    key: str
    what: str
    remedy: str = ""
    value: str | None = None
    origin: Origin | None = None
    others: tuple[str, ...] = ()

    def at(self, origin: Origin | None) -> "Problem":
        return self if self.origin else replace(self, origin=origin)

    def __str__(self) -> str:
        subject = self.key if self.value is None else f"{self.key} = {self.value}"
        if self.origin is not None and self.origin.is_flag_of(self.key):
            subject = ""  # the flag already shows key and value
        head = ": ".join(part for part in (str(self.origin or ""), subject, self.what) if part)
        return f"{head}\n    {self.remedy}" if self.remedy else head


class ConfigError(Exception):
    """A request that cannot be carried out, with everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(render(self.problems))


def render(problems: Iterable[Problem]) -> str:
    """Plain text, one `error: WHERE: KEY = VALUE: WHAT` line a problem, its remedy indented below."""
    return "\n".join(f"error: {problem}" for problem in problems)


def dotted(path: KeyPath) -> str:
    """A key path as TOML writes it: a part that is no bare key is quoted."""
    return ".".join(
        str(part) if isinstance(part, int) or _BARE_KEY.fullmatch(part) else _as_toml(part) for part in path
    )


def path_of(key: str) -> KeyPath:
    """The inverse of `dotted`."""
    parts = [found[0] for found in _KEY_PART.finditer(key)]
    return tuple(
        int(part)
        if part.isdecimal()
        else re.sub(r"\\(.)", r"\1", part[1:-1])
        if part.startswith('"') and part.endswith('"') and len(part) > 1
        else part
        for part in parts
    )


def shown(value: Any) -> str:
    """A value as a TOML file would show it, on one line and not longer than a glance."""
    text = _as_toml(value)
    if len(text) <= _SHOWN_VALUE_CHARACTERS:
        return text
    return text[: _SHOWN_VALUE_CHARACTERS - 3] + "..."


def _as_toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped) + '"'
        case list() | tuple():
            return "[" + ", ".join(shown(item) for item in value[:20]) + "]"
        case dict():
            return "{" + ", ".join(f"{key} = {shown(item)}" for key, item in list(value.items())[:20]) + "}"
        case int() if abs(value) >= 10**_SHOWN_VALUE_CHARACTERS:
            return f"an integer of {value.bit_length()} bits"
        case _:
            return str(value)
