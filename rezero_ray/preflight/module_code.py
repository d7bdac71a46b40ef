"""Code of an environment's module, run in the process of a command: its output stays inside, and it ends nothing."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from rezero_ray.foreign.rezero_child.contained import ModuleExited, exits_contained

_TOLD_CHARACTERS = 300


@dataclass
class Printed:
    """What the code prints, on standard output and standard error, by Python or by file descriptor."""

    file: BinaryIO

    def last_line(self) -> str:
        """The last line of text, empty where there is none."""
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(max(0, size - _TOLD_CHARACTERS))
        lines = self.file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


@contextlib.contextmanager
def module_code(what: str) -> Iterator[Printed]:
    """Runs code of a module inside; `what` names it.

    Raises:
        ModuleExited: it called sys.exit, or raised KeyboardInterrupt although nobody pressed Ctrl-C.
        KeyboardInterrupt: somebody did.
    """
    with tempfile.TemporaryFile() as file, _interrupts() as pressed, _output_to(file):
        try:
            with exits_contained(what):
                yield Printed(file)
        except ModuleExited as error:
            if pressed:
                raise KeyboardInterrupt from error
            raise


@contextlib.contextmanager
def _output_to(file: BinaryIO) -> Iterator[None]:
    with open(file.fileno(), "w", encoding="utf-8", errors="replace", closefd=False, buffering=1) as text:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        saved = [os.dup(1), os.dup(2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                yield
        finally:
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C as it was, noted. Off the main thread there is none."""
    pressed: list[int] = []
    previous: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield pressed
        return

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)
