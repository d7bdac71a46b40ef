"""May this request resume the run in output_dir? Its config is compared with the one that the run recorded, and with
what the newest checkpoint says of itself. Nothing is written."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rezero_ray.checkpoint import Recorded, newest_recorded
from rezero_ray.config import Config, ConfigError, Origin, Problem, read_draft
from rezero_ray.config.layers import Layer
from rezero_ray.config.problems import shown
from rezero_ray.config.resume_changes import (
    Change,
    changes,
    equal_values,
    rollouts_again,
    value_shown,
)
from rezero_ray.config.resume_table import row_of
from rezero_ray.config_history import config_file
from rezero_ray.preflight.findings import Findings
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.model_identity import fingerprint
from rezero_ray.run_directory import METRICS, read_metrics

NEW_RUN = "or start a new run: write another output_dir"
LORA = {
    "trainer.model.lora.rank": "r",
    "trainer.model.lora.alpha": "lora_alpha",
    "trainer.model.lora.target_modules": "target_modules",
}
"""Keys and what PEFT's adapter_config.json calls them."""


def examine_resume(config: Config, facts: ModelFacts | None, directory: Path) -> Findings:
    """Changes that `rezero_ray.config.resume_table` does not allow are problems, others that matter are notes."""
    try:
        recorded = newest_recorded(directory)
    except (OSError, ValueError) as error:
        return Findings([_unreadable(directory, f"its newest checkpoint cannot be read: {error}")])
    if recorded is None and not ((directory / METRICS).is_file() and read_metrics(directory)):
        return Findings(notes=[f"--resume: {directory} has no step yet; the run starts from step 1"])
    file = config_file(directory, recorded.run.step if recorded else None)
    if not file.exists():
        return Findings([_unreadable(directory, f"it has no {file.name} to compare this config with")])
    try:
        draft = read_draft([file])
    except ConfigError as error:
        return Findings([_unreadable(directory, f"its config cannot be read: {error.problems[0]}")])
    if draft.config is None or draft.left_out:
        return Findings([_unreadable(directory, f"its config is not valid here: {draft.problems[0]}")])
    found = [change for change in changes(draft.config, config) if not _moved(change, facts, recorded)]
    problems = [_refused(change, draft.layer) for change in found if not change.allowed]
    if recorded is not None:
        named = {problem.key for problem in problems}
        problems += [
            problem for problem in _stored(config, facts, recorded, directory) if problem.key not in named
        ]
    return Findings(problems, _notes(found, recorded))


def examine_sizes(config: Config, sizes: Mapping[int, int], directory: Path) -> list[Problem]:
    """Environments whose number of training tasks is not the checkpoint's: their prompts would be dealt anew.

    `sizes` are those that were found, by the environment's index.
    """
    recorded = newest_recorded(directory)
    before = recorded.run.sizes if recorded else {}
    problems = []
    for index, name in enumerate(env.name for env in config.orchestrator.env):
        if index in sizes and name in before and sizes[index] != before[name]:
            what = f"{name} has {sizes[index]} training tasks; the run in {directory} began with {before[name]}, and "
            what += "its checkpoint counts the prompts that were used among those"
            remedy = f"install the version of the environment that the run began with, {NEW_RUN}"
            problems.append(Problem(f"orchestrator.env.{index}", what, remedy))
    return problems


def _notes(found: Sequence[Change], recorded: Recorded | None) -> list[str]:
    first = recorded.run.step + 1 if recorded else 1
    told = [change for change in found if change.allowed and "note" in change.row.verdict.value]
    notes = [f"--resume, from step {first} on: {change.note()}" for change in told]
    if recorded and rollouts_again(told):
        notes.append("--resume: rollouts that wait to be trained on are made again under the new config")
    return notes


def _refused(change: Change, layer: Layer) -> Problem:
    origin = layer.origin(
        tuple(int(part) if part.isdecimal() else part for part in change.old_key.split("."))
    )
    was = "leaves it unset" if change.old is None else f"has {value_shown(change.old)}"
    what = f"the run {was} ({origin}), and this key may not change. {change.row.reason}"
    remedy = f"drop it, {NEW_RUN}" if change.old is None else f"write {value_shown(change.old)}, {NEW_RUN}"
    return Problem(change.key, what, remedy, value_shown(change.new))


def _moved(change: Change, facts: ModelFacts | None, recorded: Recorded | None) -> bool:
    """Whether the model lies elsewhere and is the same."""
    if change.key != "model.name" or recorded is None or facts is None or facts.folder is None:
        return False
    return bool(recorded.run.model) and fingerprint(facts.folder) == recorded.run.model


def _stored(
    config: Config, facts: ModelFacts | None, recorded: Recorded, directory: Path
) -> Iterator[Problem]:
    """What differs from the checkpoint itself, whatever config.toml says of the run."""
    where = f"the checkpoint of step {recorded.run.step} in {directory}"
    lora = config.trainer.model.lora
    wanted: dict[str, Any] = {"seed": config.seed}
    wanted |= {key: getattr(lora, key.rpartition(".")[2]) for key in LORA}
    stored: dict[str, Any] = {"seed": recorded.run.seed}
    stored |= {key: recorded.adapter[name] for key, name in LORA.items() if name in recorded.adapter}
    for key, old in stored.items():
        new = wanted[key]
        if not equal_values(key, old, new):
            what = f"{where} has {value_shown(old)}, and this key may not change. {row_of(key).reason}"
            yield Problem(key, what, f"write {value_shown(old)}, {NEW_RUN}", shown(new))
    names = [env.name for env in config.orchestrator.env]
    taken = list(recorded.run.schedule.sampler.taken)
    if taken and set(taken) != set(names):
        key = "orchestrator.env"
        what = f"{where} has the environments {value_shown(taken)}. {row_of(key).reason}"
        yield Problem(key, what, f"name these, {NEW_RUN}", shown(names))
    if recorded.run.model and facts is not None and facts.folder is not None:
        now = fingerprint(facts.folder)
        if now and now != recorded.run.model:
            what = f"its weights or its config.json are not those that {where} was trained on"
            remedy = f"name the model as it was when the run began, {NEW_RUN}"
            yield Problem("model.name", what, remedy, shown(config.model.name))


def _unreadable(directory: Path, what: str) -> Problem:
    remedy = f"resume it with the version that recorded it, {NEW_RUN}"
    return Problem("", f"cannot be resumed: {what}", remedy, origin=Origin(str(directory)))
