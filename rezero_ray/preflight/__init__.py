"""Everything that can be known to fail before anything is started: no GPU, no Ray, no engine is touched.

`rezero_ray.config.cross_check` has already compared the config with itself. Here it meets the model's files,
the environments, the output directory and the machine. What is cheap (milliseconds) comes first; environments
are built and their prompts tokenised (seconds) only when nothing cheap is wrong.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rezero_ray.config import Config, ConfigError, Problem
from rezero_ray.preflight.environment_scoring import Effort
from rezero_ray.preflight.environments import Looks, examine_looks, examine_sources, look_at
from rezero_ray.preflight.findings import Findings
from rezero_ray.preflight.foreign_environments import Seen
from rezero_ray.preflight.machine import Device, Machine, this_machine
from rezero_ray.preflight.model import examine_model
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.processor import examine_processor
from rezero_ray.preflight.resources import examine_resources
from rezero_ray.preflight.resuming import examine_sizes
from rezero_ray.preflight.run_directory import examine_output
from rezero_ray.preflight.tools import examine_parser
from rezero_ray.preflight.tracking import examine_tracking

__all__ = [
    "Backend",
    "Device",
    "Machine",
    "ModelFacts",
    "Preflight",
    "Problem",
    "preflight",
    "survey",
    "this_machine",
]


class Backend(Protocol):
    """What the backend of `[infra] kind` can tell without starting anything (`infra.examination.examine`)."""

    def __call__(self, config: Config, *, resume: bool) -> list[Problem]: ...


@dataclass(frozen=True)
class Preflight:
    """What was found out about a request on the way, and notes for the reader."""

    facts: ModelFacts | None
    machine: Machine
    device: Device
    notes: tuple[str, ...]
    looks: Looks | None = None  # of the environments, where they were built


def preflight(
    config: Config,
    *,
    resume: bool = False,
    for_run: bool = True,
    machine: Machine | None = None,
    backend: Backend | None = None,
) -> Preflight:
    """Looks at everything and raises ConfigError with all that is wrong.

    `for_run=False` is a dry run, perhaps on a laptop for a machine that is yet to be rented: what is merely
    not here (a model of the hub, an environment of the hub, memory, GPUs under `device = "auto"`) is a note
    then, and neither are environments built nor is the backend asked. Of a run that a launcher takes elsewhere, model
    and output_dir are there, and so is the machine: it is looked at where the backend knows it. What a cluster of
    somebody's has is known when the run joins it.
    """
    found, problems = survey(config, resume=resume, for_run=for_run, machine=machine, backend=backend)
    if problems:
        raise ConfigError(problems)
    return found


def survey(
    config: Config,
    *,
    resume: bool = False,
    for_run: bool = True,
    machine: Machine | None = None,
    backend: Backend | None = None,
    effort: Effort | None = None,
) -> tuple[Preflight, list[Problem]]:
    """As `preflight`, with the problems beside what was found out.

    With an `effort` environments are built, and tried with answers, although something else is wrong already.
    """
    remote = config.infra.elsewhere()
    rented = config.infra.machine() if remote else None
    machine = machine or (Machine(*rented) if rented else this_machine())
    facts, found = examine_model(config, must_be_here=for_run and not remote, elsewhere=remote)
    device = machine.device(config)
    elsewhere = not for_run and config.device == "auto" and not _model_is_here(facts)
    if elsewhere and device == "cpu":
        device = "cuda"
        found.notes.append("no GPU and no model here: planned for GPUs")
    sources = examine_sources(config, must_be_here=for_run)
    found += sources
    found += examine_parser(config)
    if not remote:
        found += examine_output(config, facts, resume=resume)
        found += examine_tracking(config, ask=for_run)
    if rented or (config.infra.on_this_machine() and not remote):
        found += _resources(config, facts, machine, device, lenient=elsewhere)
    if config.infra.on_this_machine() and not remote:
        found += examine_processor(config, device)
    if for_run and backend is not None:
        found += Findings(backend(config, resume=resume))
    looks = None
    if for_run and (effort or not found.problems):
        wrong = {problem.key.split(".")[2] for problem in sources.problems}
        leave = [index for index in range(len(config.orchestrator.env)) if str(index) in wrong]
        looks = look_at(config, facts, effort=effort, leave=leave)
        found += examine_looks(config, looks)
        if not remote and (resume or config.ckpt.resume == "auto"):
            sizes = {index: seen.size for index, seen in looks.seen.items() if isinstance(seen, Seen)}
            found.problems += examine_sizes(config, sizes, Path(config.output_dir).expanduser())
    return Preflight(facts, machine, device, tuple(found.notes), looks), found.problems


def _resources(
    config: Config, facts: ModelFacts | None, machine: Machine, device: Device, *, lenient: bool
) -> Findings:
    found = examine_resources(config, facts, machine, device)
    if not lenient:
        return found
    notes = [f"{problem.key}: {problem.what}" for problem in found.problems if problem.key != "device"]
    return Findings(notes=notes)


def _model_is_here(facts: ModelFacts | None) -> bool:
    return facts is not None and facts.folder is not None
