"""The record of a step: `rollouts/step_NNNNNN.jsonl`, every rollout that it was trained on, one a line.

A line is a rollout's fields, and with them its `prompt` and its `advantage`. What JSON cannot hold is written
as null (a logprob or component that is not finite) or as `?` (half of a surrogate pair in a text).
"""

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from rezero_ray.codec import encode_json, from_json
from rezero_ray.config.problems import ConfigError, Origin, Problem
from rezero_ray.records import Group, Prompt, Rollout

COMPRESS_ABOVE = 64 * 2**20
"""Bytes of JSON above which a file is gzip'd: some 2.7 million tokens. Below, text tools read it as it is."""

FASTEST = 1
"""gzip's level: the step waits for it. Level 6 takes four times as long and makes 4 % less of ids and logprobs."""

_NAME = re.compile(r"step_(\d{6,})\.jsonl(?:\.gz)?")


class StepRecord(msgspec.Struct, frozen=True, eq=False):
    """A step as read back: its groups, in the file's order, and the advantage of each rollout of each group.

    The groups' `seconds` were not recorded and are 0.
    """

    groups: list[Group]
    advantages: list[list[float]]


def write_step(
    run: Path,
    step: int,
    groups: Sequence[Group],
    advantages: Sequence[Sequence[float]],
    *,
    compress_above: int = COMPRESS_ABOVE,
) -> Path:
    """Record a step under the run directory `run`: the whole file appears at once, or none. Returns its path.

    Args:
        groups: what was trained on.
        advantages: of each rollout of each group.
        compress_above: bytes of JSON above which the file is gzip'd.
    """
    lines = [
        encode_json(_row(group.prompt, rollout, advantage)) + b"\n"
        for group, group_advantages in zip(groups, advantages, strict=True)
        for rollout, advantage in zip(group.rollouts, group_advantages, strict=True)
    ]
    plain, compressed = _paths(run, step)
    compress = sum(map(len, lines)) > compress_above
    path, other = (compressed, plain) if compress else (plain, compressed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        if compress:
            with gzip.GzipFile(
                filename="", mode="wb", compresslevel=FASTEST, fileobj=file, mtime=0
            ) as archive:
                archive.writelines(lines)
        else:
            file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    other.unlink(missing_ok=True)
    return path


def read_step(run: Path, step: int) -> StepRecord:
    """What `write_step` recorded.

    Raises:
        ConfigError: no such step, or a file that is cut short or holds something else, with file and line.
    """
    path = next((path for path in _paths(run, step) if path.exists()), None)
    if path is None:
        remedy = f"name a step that is: {in_ranges(recorded_steps(run))}"
        raise ConfigError([Problem("", f"step {step} is not recorded", remedy, origin=Origin(str(run)))])
    rollouts: dict[Prompt, list[Rollout]] = {}
    advantages: dict[Prompt, list[float]] = {}
    for number, line in _lines(path):
        prompt, rollout, advantage = _parsed(path, number, line)
        rollouts.setdefault(prompt, []).append(rollout)
        advantages.setdefault(prompt, []).append(advantage)
    if not rollouts:
        raise _damaged(path, None, "holds no rollout")
    groups = [Group(prompt=prompt, rollouts=found, seconds=0.0) for prompt, found in rollouts.items()]
    return StepRecord(groups=groups, advantages=list(advantages.values()))


def first_rollouts(run: Path, step: int, count: int) -> list[tuple[Prompt, Rollout]]:
    """The first `count` rollouts of a step, without reading the others; fewer where it has fewer, or no record.

    Raises:
        ConfigError: a file that is cut short or holds something else, with file and line.
    """
    path = next((path for path in _paths(run, step) if path.exists()), None)
    lines = islice(_lines(path), count) if path is not None and count else ()
    return [_parsed(path, number, line)[:2] for number, line in lines] if path is not None else []


def recorded_steps(run: Path) -> list[int]:
    """The steps that have a record, in order."""
    names = (path.name for path in (run / "rollouts").glob("step_*"))
    return sorted({int(match[1]) for name in names if (match := _NAME.fullmatch(name))})


def delete_after(run: Path, step: int) -> None:
    """Delete the records of all steps after `step`."""
    for later in recorded_steps(run):
        if later > step:
            for path in _paths(run, later):
                path.unlink(missing_ok=True)


def in_ranges(numbers: Sequence[int]) -> str:
    """Rising numbers for a reader: `1 to 4, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs) or "none"


def _paths(run: Path, step: int) -> tuple[Path, Path]:
    """Where a step's record is: plain, or compressed."""
    plain = run / "rollouts" / f"step_{step:06d}.jsonl"
    return plain, plain.with_name(f"{plain.name}.gz")


def _row(prompt: Prompt, rollout: Rollout, advantage: float) -> dict[str, Any]:
    text = [{key: _encodable(value) for key, value in message.items()} for message in rollout.text]
    return {"prompt": prompt, **msgspec.structs.asdict(rollout), "text": text, "advantage": advantage}


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, from 1."""
    number = 0
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line
        except EOFError:
            raise _damaged(path, number + 1, "is cut short") from None
        except (OSError, zlib.error) as error:
            raise _damaged(path, number + 1, f"cannot be read: {error}") from None


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _parsed(path: Path, number: int, line: bytes) -> tuple[Prompt, Rollout, float]:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        cut_short = not line.endswith(b"\n")
        raise _damaged(path, number, "is cut short" if cut_short else f"is not JSON: {error}") from None
    try:
        prompt = msgspec.convert(row["prompt"], Prompt)
        advantage = msgspec.convert(row["advantage"], float)
        row["components"] = {
            name: math.nan if value is None else value for name, value in row["components"].items()
        }
        rollout = from_json(row, Rollout)
    except msgspec.ValidationError as error:
        raise _damaged(path, number, f"is no rollout: {error}") from None
    except KeyError as error:
        raise _damaged(path, number, f"is no rollout: {error.args[0]} is missing") from None
    except (TypeError, AttributeError):
        raise _damaged(path, number, "is no rollout") from None
    lengths = {len(rollout.token_ids), len(rollout.logprobs), len(rollout.loss_mask)}
    if len(lengths) > 1 or not 0 < rollout.prompt_length <= len(rollout.token_ids):
        raise _damaged(
            path, number, "is no rollout: token_ids, logprobs, loss_mask, prompt_length do not fit"
        )
    return prompt, rollout, advantage


def _damaged(path: Path, line: int | None, what: str) -> ConfigError:
    remedy = "take the file from a backup; nothing else of the run needs it, and --resume does not read it"
    return ConfigError([Problem("", what, remedy, origin=Origin(str(path), line))])
