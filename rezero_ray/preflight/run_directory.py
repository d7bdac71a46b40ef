"""May the run write where the config says? Looks only; creates nothing."""

import os
from pathlib import Path

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.findings import Findings

RUN_FILES = ("run.json", "config.toml", "metrics.jsonl", "rollouts", "checkpoints")


def holds_a_run(directory: Path) -> bool:
    return any((directory / name).exists() for name in RUN_FILES)


def examine_output(config: Config, *, resume: bool) -> Findings:
    """An existing run is gone on with or refused, never overwritten."""
    directory = Path(config.output_dir).expanduser()
    value = shown(config.output_dir)
    try:
        blocker = _not_a_directory(directory)
        if blocker is not None:
            problem = Problem("output_dir", f"{blocker} is not a directory", "name another directory", value)
            return Findings([problem])
        ancestor = _nearest_existing(directory)
        if not os.access(ancestor, os.W_OK | os.X_OK):
            what = f"{ancestor} is not writable"
            return Findings([Problem("output_dir", what, "name a directory you may write to", value)])
        if holds_a_run(directory):
            return _existing(config, directory, resume)
    except (OSError, ValueError) as error:  # a name too long, a NUL in it
        return Findings([Problem("output_dir", f"cannot be used: {error}", "name another directory", value)])
    if resume:
        return Findings(notes=[f"--resume: {directory} holds no run yet, a new one begins"])
    return Findings()


def _existing(config: Config, directory: Path, resume: bool) -> Findings:
    if resume or config.ckpt.resume == "auto":
        return Findings()
    return Findings(
        [
            Problem(
                "output_dir",
                f"{directory} holds another run",
                "go on with it: --resume; or begin anew: name another output_dir",
                shown(config.output_dir),
            )
        ]
    )


def _not_a_directory(directory: Path) -> Path | None:
    ancestor = _nearest_existing(directory)
    return None if ancestor.is_dir() else ancestor


def _nearest_existing(directory: Path) -> Path:
    path = directory.absolute()
    while True:
        try:
            path.lstat()
            return path
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
