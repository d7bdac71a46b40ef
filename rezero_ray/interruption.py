"""Ctrl-C and SIGTERM: the first asks the run to save and leave, the second leaves at once."""

import signal
from types import FrameType, TracebackType


class StopRequest:
    """Context that takes over SIGINT and SIGTERM.

    While there is nothing to save, the first one raises KeyboardInterrupt. Once `armed`, the first sets
    `requested`, and the second raises KeyboardInterrupt. To be entered after `ray.init`, which sets a SIGTERM
    handler of its own.
    """

    def __init__(self) -> None:
        self.armed = False
        self.requested = False

    def __enter__(self) -> "StopRequest":
        self._before = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested or not self.armed:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this step, with a checkpoint; once more to leave at once", flush=True)
