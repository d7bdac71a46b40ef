"""Where each key of a TOML text stands, for error messages. `tomllib` gives the values but not their lines.

The scanner runs over text that `tomllib` has already accepted, so it only has to follow the grammar, not to
judge it. If it loses its way it returns what it found so far: a message then lacks its line number.
"""

import contextlib
import tomllib
from dataclasses import dataclass, field

from rezero_ray.config.problems import KeyPath

Positions = dict[KeyPath, tuple[int, int]]  # key path -> line and column, both from 1

_BARE_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def key_positions(text: str) -> Positions:
    """Line and column of every key, table header and array element of a valid TOML text."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with contextlib.suppress(IndexError, ValueError, RecursionError):  # see the module's docstring
        scanner.document()
    return scanner.found


@dataclass
class _Scanner:
    text: str
    at: int = 0
    found: Positions = field(default_factory=dict)
    tables_in_array: dict[KeyPath, int] = field(default_factory=dict)
    _line: int = 1
    _line_start: int = 0
    _counted_to: int = 0

    def document(self) -> None:
        table: KeyPath = ()
        while self._skip_blank() < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        start, array = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        path = self._inside_arrays(self._dotted_key(), last_too=not array)
        if array:
            index = self.tables_in_array.get(path, -1) + 1
            self.tables_in_array[path] = index
            self._record(path, start)
            path = (*path, index)
        self._record(path, start)
        self._expect("]]" if array else "]")
        return path

    def _inside_arrays(self, keys: list[str], *, last_too: bool) -> KeyPath:
        """Header keys name arrays of tables without an index: they mean the array's newest element."""
        path: KeyPath = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if path in self.tables_in_array and (last_too or number < len(keys) - 1):
                path = (*path, self.tables_in_array[path])
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self._skip_blank()
        path = (*table, *self._dotted_key())
        for length in range(len(table) + 1, len(path) + 1):
            self._record(path[:length], start)
        self._expect("=")
        self._skip_spaces()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening in "\"'":
            self._string()
        elif opening == "[":
            self._sequence(path, "]")
        elif opening == "{":
            self._sequence(path, "}")
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}\n#":
                self.at += 1

    def _sequence(self, path: KeyPath, closing: str) -> None:
        self.at += 1
        index = 0
        while self.text[self._skip_blank()] != closing:
            if self.text[self.at] == ",":
                self.at += 1
            elif closing == "}":
                self._pair(path)
            else:
                self._record((*path, index), self.at)
                self._value((*path, index))
                index += 1
        self.at += 1

    def _dotted_key(self) -> list[str]:
        keys = [self._simple_key()]
        while self._skip_spaces() < len(self.text) and self.text[self.at] == ".":
            self.at += 1
            keys.append(self._simple_key())
        return keys

    def _simple_key(self) -> str:
        start = self._skip_spaces()
        if self.text[start] in "\"'":
            self._string()
            (key,) = tomllib.loads(f"{self.text[start : self.at]} = 0")
            return str(key)
        while self.at < len(self.text) and self.text[self.at] in _BARE_KEY:
            self.at += 1
        if self.at == start:
            raise ValueError(f"no key at offset {start}")
        return self.text[start : self.at]

    def _string(self) -> None:
        quote = self.text[self.at]
        closing = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(closing)
        while not self.text.startswith(closing, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
            if self.at >= len(self.text):
                raise ValueError("string without end")
        self.at += len(closing)
        while len(closing) == 3 and self.text.startswith(quote, self.at):
            self.at += 1  # up to two quotes may stand before the closing three

    def _expect(self, token: str) -> None:
        self._skip_spaces()
        if not self.text.startswith(token, self.at):
            raise ValueError(f"{token} expected at offset {self.at}")
        self.at += len(token)

    def _skip_spaces(self) -> int:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
        return self.at

    def _skip_blank(self) -> int:
        """Over spaces, line ends and comments."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in " \t\n":
                self.at += 1
            else:
                break
        return self.at

    def _record(self, path: KeyPath, offset: int) -> None:
        if offset > self._counted_to:
            between = self.text.count("\n", self._counted_to, offset)
            self._line += between
            if between:
                self._line_start = self.text.rfind("\n", 0, offset) + 1
            self._counted_to = offset
        self.found.setdefault(path, (self._line, offset - self._line_start + 1))
