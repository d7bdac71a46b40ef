"""Ctrl-C and SIGTERM: the first asks the run to save and leave, the second leaves at once. And the end of Ray's
processes, which whoever stops a service or a job signals at the same moment."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

LOOK_SECONDS = 0.5
"""Between two looks at Ray's processes."""

GRACE_SECONDS = 1.5
"""After their end, for the signal that this process gets as well: it decides how the run ended."""


class StopRequest:
    """Context that takes over SIGINT and SIGTERM.

    While there is nothing to save, the first one raises KeyboardInterrupt. Once `armed`, the first sets
    `requested`, and the second raises KeyboardInterrupt. To be entered after `ray.init`, which sets a SIGTERM
    handler of its own. Signals belong to the main thread: on another one, nothing is taken over.
    """

    def __init__(self) -> None:
        self.armed = False
        self.requested = False
        self.cluster_lost = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # whatever was there
        self._before = {}

    def lose_cluster(self) -> None:
        """From any thread: Ray has ended, so nothing can be saved. Raises KeyboardInterrupt in the main thread."""
        self.cluster_lost = True
        if self._before:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.cluster_lost and number == signal.SIGTERM:  # the one that Ray got, late
            self.requested = True
            return
        if self.requested or self.cluster_lost or not self.armed:
            self.requested = self.requested or not self.cluster_lost
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping after this step, with a checkpoint; once more to leave at once", flush=True)


class ClusterWatch:
    """Context that looks whether Ray's processes live, and tells `stop` when they do not.

    Ray's own answer comes after 60 seconds, and ends this process without a word to its caller.
    """

    def __init__(
        self,
        alive: Callable[[], bool],
        stop: StopRequest,
        *,
        look: float = LOOK_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._alive, self._stop, self._look, self._grace = alive, stop, look, grace
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cluster-watch", daemon=True)

    def __enter__(self) -> "ClusterWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self._thread.join()

    def end(self) -> None:
        """Look no longer: the run is leaving already, and is not to be interrupted in it."""
        self._over.set()

    def sees_end_within(self, seconds: float) -> bool:
        """Whether Ray's processes end within that time: what failed just before may have failed for that."""
        deadline = time.monotonic() + seconds
        while self._alive() and time.monotonic() < deadline:
            time.sleep(self._look / 5)
        return not self._alive()

    def _watch(self) -> None:
        while self._alive():
            if self._over.wait(self._look):
                return
        if not self._over.wait(self._grace):
            self._stop.lose_cluster()
