"""What is known of each run, in a Modal Dict: it is the lock of a configuration, and what `rezero runs` shows."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec

from infra.modal.client import modal_client

DICT = "re-zero-runs"

LAUNCH_SECONDS = 3600.0
"""A launch without a call yet is under way for this long at most: the first build of the image takes a while."""

SILENT_SECONDS = 180.0
"""A container that lives writes its record every HEARTBEAT_SECONDS; after this long it is taken for dead."""

HEARTBEAT_SECONDS = 30.0

ENDED = ("done", "out of budget", "failed", "refused", "stopped")


@dataclass(frozen=True)
class RunRecord:
    """A run: one configuration, one App, one call of its function, in one container after another.

    `name` is the App's. `starts` holds the step after which each attempt began, `cost` the dollars of all attempts.
    `ray_token` is a secret of the run; who can read the workspace's Dicts can read it.
    """

    name: str
    config_id: str
    output_dir: str
    launched: float
    app_id: str = ""
    call_id: str = ""
    status: str = "launching"
    starts: list[int] = field(default_factory=list)
    step: int = 0
    seen: float = 0.0
    ray_dashboard: str = ""
    ray_token: str = ""
    cost: float | None = None

    @property
    def address(self) -> str:
        return f"https://modal.com/id/{self.call_id or self.app_id or self.name}"

    def is_fresh(self, now: float) -> bool:
        """Whether somebody is at work on it, as far as the record tells."""
        if self.status in ENDED:
            return False
        if not self.call_id:
            return now - self.launched < LAUNCH_SECONDS
        return now - self.seen < SILENT_SECONDS


class Records:
    """The Dict. A record is one entry, under the run's name."""

    def __init__(self) -> None:
        self._dict = modal_client().Dict.from_name(DICT, create_if_missing=True)

    def reserve(self, record: RunRecord) -> bool:
        """Write a record where there is none under its name; False where there is one."""
        return bool(self._dict.put(record.name, asdict(record), skip_if_exists=True))

    def get(self, name: str) -> RunRecord | None:
        found: dict[str, Any] | None = self._dict.get(name)
        return _read(found) if found else None

    def update(self, record: RunRecord, **changes: Any) -> RunRecord:
        changed = replace(record, seen=time.time(), **changes)
        self._dict.put(changed.name, asdict(changed))
        return changed

    def release(self, name: str) -> None:
        self._dict.pop(name, None)

    def all(self) -> Iterator[RunRecord]:
        for value in self._dict.values():
            yield _read(value)


def _read(entry: dict[str, Any]) -> RunRecord:
    """Fields that another version of this project wrote beside ours are left out."""
    return msgspec.convert(entry, RunRecord)
