"""Checkpoints: complete or not there.

A checkpoint is written straight into its directory (network volumes rename badly), every file flushed to
disk, and `COMPLETE.json` last, with a checksum of every other file. A directory without it, or whose files
differ from it, does not count.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rezero_ray.codec import decode, encode
from rezero_ray.config import ConfigError, Origin, Problem
from rezero_ray.records import Adapter, Bytes, Group
from rezero_ray.schedule import ScheduleState

COMPLETE = "COMPLETE.json"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
LEARNER, RUN, GROUPS = "state/learner.safetensors", "state/run.json", "state/groups.msgpack"
FILES = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, LEARNER, RUN, GROUPS)


class RunState(msgspec.Struct, frozen=True):
    """What the controller needs to go on, the groups that were rolled out and not trained on among it.

    All sampling seeds are functions of the run's seed and the prompt's index, and the learner draws nothing after
    its start, so the sampler's position is the whole state of the RNG.
    """

    step: int
    seed: int
    schedule: ScheduleState
    model: str = ""
    """Fingerprint of the base model's files; empty where they were not on the controller's machine."""
    sizes: dict[str, int] = {}
    """Training examples of each environment, which the sampler's position counts in."""


class Recorded(msgspec.Struct, frozen=True):
    """What a checkpoint says of itself, without its weights and groups. `adapter` is PEFT's adapter_config.json."""

    run: RunState
    adapter: dict[str, Any]


class Checkpoint(msgspec.Struct, frozen=True, eq=False):
    """A complete checkpoint as read back."""

    run: RunState
    learner: Bytes
    adapter: Adapter


def checkpoint_path(output_dir: Path, step: int) -> Path:
    return output_dir / "checkpoints" / f"step_{step:06d}"


def save(output_dir: Path, run: RunState, learner: Bytes, adapter: Adapter, *, keep_last: int) -> Path:
    """Write the checkpoint of `run.step`, then delete those before the last `keep_last` whole ones."""
    directory = checkpoint_path(output_dir, run.step)
    if directory.exists():
        shutil.rmtree(directory)
    files: dict[str, bytes | memoryview] = {
        ADAPTER_WEIGHTS: adapter.weights.data,
        ADAPTER_CONFIG: adapter.config,
        LEARNER: learner.data,
        RUN: _encode(run),
        GROUPS: encode(run.schedule.ready),
    }
    for name, content in files.items():
        _write(directory / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    _write(directory / COMPLETE, json.dumps({"step": run.step, "sha256": sums}, indent=2).encode())
    _delete_old(output_dir, run.step, keep_last)
    return directory


def load_newest(output_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and for each newer one that was passed over the reason."""
    return load_before(output_dir, sys.maxsize)


def load_before(output_dir: Path, end: int) -> tuple[Checkpoint | None, list[str]]:
    """As `load_newest`, among the checkpoints of steps below `end`."""
    passed_over: list[str] = []
    for step in (step for step in _steps(output_dir) if step < end):
        directory = checkpoint_path(output_dir, step)
        problem = _damage(directory)
        if problem is None:
            return _read(directory), passed_over
        passed_over.append(f"{directory.name}: {problem}")
    return None, passed_over


def newest_recorded(output_dir: Path) -> Recorded | None:
    """What the newest checkpoint says of itself; None where there is none. Of its files only the two small ones are
    read, so it may be one that `load_newest` passes over."""
    for step in _steps(output_dir):
        directory = checkpoint_path(output_dir, step)
        if _damage(directory, (RUN, ADAPTER_CONFIG)) is None:
            return Recorded(
                run=msgspec.json.decode((directory / RUN).read_bytes(), type=RunState),
                adapter=msgspec.json.decode((directory / ADAPTER_CONFIG).read_bytes(), type=dict[str, Any]),
            )
    return None


def load_wanted(output_dir: Path, step: int | None) -> Checkpoint:
    """The checkpoint of `step`, or the newest whole one.

    Raises:
        ConfigError: it is not there, or not whole.
    """
    found, passed_over = load_newest(output_dir) if step is None else load_before(output_dir, step + 1)
    if found is None or step not in (None, found.run.step):
        what = "it has no complete checkpoint" + ("" if step is None else f" of step {step}")
        what += "".join(f"; passed over: {line}" for line in passed_over)
        steps = ", ".join(str(each) for each in reversed(_steps(output_dir)))
        remedy = f"it has checkpoints of the steps {steps}" if steps else "wait for its first checkpoint"
        raise ConfigError([Problem("", what, remedy, origin=Origin(str(output_dir)))])
    return found


def _read(directory: Path) -> Checkpoint:
    weights = np.fromfile(directory / ADAPTER_WEIGHTS, dtype=np.uint8)
    return Checkpoint(
        run=_decode((directory / RUN).read_bytes(), (directory / GROUPS).read_bytes()),
        learner=np.fromfile(directory / LEARNER, dtype=np.uint8),
        adapter=Adapter(
            weights=weights,
            config=(directory / ADAPTER_CONFIG).read_bytes(),
            digest=hashlib.sha256(weights.data).hexdigest(),
        ),
    )


def _encode(run: RunState) -> bytes:
    """The state to read by eye; the groups, which are large, have a file of their own."""
    without_groups = msgspec.structs.replace(run, schedule=msgspec.structs.replace(run.schedule, ready=[]))
    return msgspec.json.format(msgspec.json.encode(without_groups))


def _decode(run: bytes, groups: bytes) -> RunState:
    state = msgspec.json.decode(run, type=RunState)
    ready = decode(groups, list[Group])
    return msgspec.structs.replace(state, schedule=msgspec.structs.replace(state.schedule, ready=ready))


def _damage(directory: Path, files: Sequence[str] = FILES) -> str | None:
    try:
        sums = json.loads((directory / COMPLETE).read_text("utf-8"))["sha256"]
        for name in files:
            expected = sums[name]
            if hashlib.sha256((directory / name).read_bytes()).hexdigest() != expected:
                return f"{name} differs from its checksum"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{COMPLETE} cannot be read: {type(error).__name__}: {error}"
    return None


def _steps(output_dir: Path) -> list[int]:
    """Steps of all checkpoints, whole or not, the newest first."""
    names = (path.name for path in (output_dir / "checkpoints").glob("step_*"))
    return sorted((int(m[1]) for name in names if (m := re.fullmatch(r"step_(\d{6,})", name))), reverse=True)


def _delete_old(output_dir: Path, newest: int, keep_last: int) -> None:
    """Keep the last `keep_last` whole checkpoints up to step `newest`, which has just been written.

    The files of each are read: one that is broken must not take the place of one that is whole. Those of
    later steps stay: they are broken, and for that the run went on from an earlier one.
    """
    kept = 0
    for step in (step for step in _steps(output_dir) if step <= newest):
        directory = checkpoint_path(output_dir, step)
        if kept == keep_last:
            (directory / COMPLETE).unlink(missing_ok=True)
            shutil.rmtree(directory)
        elif step == newest or _damage(directory) is None:
            kept += 1


def _write(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
