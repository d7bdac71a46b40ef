"""Saves checkpoints beside the run: the loop is held up by copying the state, not by writing it."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from rezero_ray import checkpoint
from rezero_ray.errors import RunError
from rezero_ray.records import Adapter, Bytes


class CheckpointWriter:
    """One checkpoint at a time, in a thread of its own; leaving the context waits for the last.

    `seconds` is how long the longest took to be written; None before the first was.
    """

    def __init__(
        self,
        output_dir: Path,
        keep_last: int,
        on_saved: Callable[[Path], None],
        require_held: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_held` raises RunError where another process has taken the run directory over."""
        self._output_dir, self._keep_last, self._on_saved = output_dir, keep_last, on_saved
        self._require_held = require_held
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.seconds: float | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)

    def begin(self, state: checkpoint.RunState, learner: Bytes, adapter: Adapter) -> None:
        """Begin to write, once the checkpoint before is there.

        Raises:
            RunError: the one before could not be written.
        """
        self.finish()
        self._writing = self._thread.submit(self._write, state, learner, adapter)

    def finish(self) -> None:
        """Wait for what is being written.

        Raises:
            RunError: it could not be written, or the run directory is another process's by now; whole checkpoints
                that are there stay.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except OSError as error:
            raise RunError("checkpoint", f"cannot be written: {error}") from error

    def _write(self, state: checkpoint.RunState, learner: Bytes, adapter: Adapter) -> None:
        began = time.monotonic()
        self._require_held()
        path = checkpoint.save(self._output_dir, state, learner, adapter, keep_last=self._keep_last)
        self.seconds = max(self.seconds or 0.0, time.monotonic() - began)
        self._on_saved(path)
