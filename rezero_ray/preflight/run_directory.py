"""May the run write where the config says? What is tried leaves nothing behind."""

import shutil
import tempfile
from pathlib import Path

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.holding.watching import in_use, look, waiting_line
from rezero_ray.preflight.findings import Findings
from rezero_ray.preflight.memory import GIB, adapter_bytes, adapter_parameters
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.resuming import examine_resume
from rezero_ray.run_directory import Contents, contents_of
from rezero_ray.spending import refusal


def examine_output(config: Config, facts: ModelFacts | None = None, *, resume: bool) -> Findings:
    """An existing run is resumed or refused, never overwritten. One that another process holds is refused."""
    directory = Path(config.output_dir).expanduser()
    try:
        blocker = _not_a_directory(directory)
        if blocker is not None:
            return _refused(config, f"{blocker} is not a directory", "name another directory")
        ancestor = _nearest_existing(directory)
        why = _not_writable(ancestor)
        if why is not None:
            return _refused(config, f"{ancestor} is not writable: {why}", "name a directory you may write to")
        held = _held(config, directory)
        if held.problems:
            return held
        contents = contents_of(directory)
        if contents != "nothing":
            return held + _existing(config, facts, directory, contents, resume)
        free, needed = shutil.disk_usage(ancestor).free, checkpoints_bytes(config, facts)
        if free < needed:
            what = f"its checkpoints need {needed / GIB:.2f} GiB, {free / GIB:.2f} are free in {ancestor}"
            return _refused(config, what, "name a directory with more room, or lower ckpt.keep_last")
    except (OSError, ValueError) as error:  # a name too long, a NUL in it
        return _refused(config, f"cannot be used: {error}", "name another directory")
    if resume:
        return Findings(notes=[f"--resume: {directory} holds no run yet, a new one begins"])
    return held


def _held(config: Config, directory: Path) -> Findings:
    """Looks and does not wait: a holder that only its heartbeat can tell of is a note here."""
    found = look(directory)
    if found is None or found.verdict == "dead":
        return Findings()
    if found.verdict == "alive":
        return Findings(list(in_use(directory, found).problems))
    return Findings(notes=[waiting_line(directory, found, config.limits.takeover)])


def _refused(config: Config, what: str, remedy: str) -> Findings:
    return Findings([Problem("output_dir", what, remedy, shown(config.output_dir))])


def _not_writable(directory: Path) -> str | None:
    """What keeps a file from being made there, tried with one that has no name or loses it at once."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return error.strerror or str(error)


def checkpoint_bytes(config: Config, facts: ModelFacts) -> int:
    """Of one: adapter in fp32 and in the model's dtype, AdamW's moments."""
    return 12 * adapter_parameters(config, facts) + adapter_bytes(config, facts)


def checkpoints_bytes(config: Config, facts: ModelFacts | None) -> int:
    """Those that are kept and the one being written; 0 where the model is not known."""
    return 0 if facts is None else (config.ckpt.keep_last + 1) * checkpoint_bytes(config, facts)


def _existing(
    config: Config, facts: ModelFacts | None, directory: Path, contents: Contents, resume: bool
) -> Findings:
    if resume or config.ckpt.resume == "auto":
        spent = refusal(config, directory)
        return Findings([spent] if spent else []) + examine_resume(config, facts, directory)
    if contents == "no step":
        return Findings(
            notes=[f"{directory} holds a run that ended before its first step; it is started again"]
        )
    remedy = "go on with it: --resume; or begin anew: name another output_dir"
    return _refused(config, f"{directory} holds another run", remedy)


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
