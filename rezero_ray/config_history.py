"""The configs of a run, by the steps that were taken under them.

`config.toml` is the newest. Where a run resumed with another one, `configs/from_step_000006.toml` is the config of
step 6 and of those after it, up to the next such file; a run whose config never changed has no `configs/`.
"""

import re
from pathlib import Path

NEWEST = "config.toml"
EARLIER = "configs"

_NAME = re.compile(r"from_step_(\d{6,})\.toml")


def config_file(run: Path, step: int | None = None) -> Path:
    """The file with the config that was in force at `step`, or with the newest."""
    history = _history(run)
    if step is None or not history:
        return run / NEWEST
    earlier = [first for first in history if first <= step]
    return history[max(earlier) if earlier else min(history)]


def first_step_under_newest(run: Path) -> int:
    """The first step that was, or will be, taken under config.toml."""
    return max(_history(run), default=1)


def record_config(run: Path, text: str, *, done: int) -> None:
    """Make `text` the config of the steps after `done`; steps after it that were taken before are forgotten.

    The history is written first and config.toml last: a crash in between leaves every step up to `done` with its own
    config.
    """
    newest = run / NEWEST
    history = _history(run)
    if not history and done and newest.exists():
        history[1] = newest
    kept = {first: file for first, file in history.items() if first <= done}
    if kept and kept[max(kept)].read_text("utf-8") != text:
        if kept[max(kept)] == newest:
            _write(_path(run, 1), newest.read_text("utf-8"))
        _write(_path(run, done + 1), text)
        kept[done + 1] = _path(run, done + 1)
    for first, file in history.items():
        if first not in kept:
            file.unlink()
    if not newest.exists() or newest.read_text("utf-8") != text:
        _write(newest, text)


def _history(run: Path) -> dict[int, Path]:
    """The files in `configs/` by their first step."""
    files = (run / EARLIER).glob("from_step_*.toml")
    return {int(found[1]): file for file in files if (found := _NAME.fullmatch(file.name))}


def _path(run: Path, first: int) -> Path:
    return run / EARLIER / f"from_step_{first:06d}.toml"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(file)
