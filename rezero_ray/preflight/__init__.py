"""Everything that can be known to fail before anything is started: no GPU, no Ray, no engine is touched.

`rezero_ray.config.cross_check` has already compared the config with itself. Here it meets the model's files,
the environments, the output directory and the machine. What is cheap (milliseconds) comes first; environments
are built and their prompts tokenised (seconds) only when nothing cheap is wrong.
"""

from dataclasses import dataclass

from rezero_ray.config import Config, ConfigError, Problem
from rezero_ray.preflight.environments import examine_prompts, examine_sources
from rezero_ray.preflight.findings import Findings
from rezero_ray.preflight.machine import Device, Machine, this_machine
from rezero_ray.preflight.model import examine_model
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.resources import examine_resources
from rezero_ray.preflight.run_directory import examine_output
from rezero_ray.preflight.tools import examine_parser

__all__ = ["Device", "Machine", "ModelFacts", "Preflight", "Problem", "preflight", "this_machine"]


@dataclass(frozen=True)
class Preflight:
    """A request that may be carried out: what was found out on the way, and notes for the reader."""

    facts: ModelFacts | None
    machine: Machine
    device: Device
    notes: tuple[str, ...]


def preflight(
    config: Config,
    *,
    resume: bool = False,
    for_run: bool = True,
    patient: bool = False,
    machine: Machine | None = None,
) -> Preflight:
    """Looks at everything and raises ConfigError with all that is wrong.

    `for_run=False` is a dry run, perhaps on a laptop for a machine that is yet to be rented: what is merely
    not here (a model of the hub, an environment of the hub, memory, GPUs under `device = "auto"`) is a note
    then, and environments are not built. `patient` builds them even where something else is wrong already.
    """
    machine = machine or this_machine()
    facts, found = examine_model(config, must_be_here=for_run)
    device = machine.device(config)
    elsewhere = not for_run and config.device == "auto" and not _model_is_here(facts)
    if elsewhere and device == "cpu":
        device = "cuda"
        found.notes.append("no GPU and no model here: planned for GPUs")
    found += examine_sources(config, must_be_here=for_run)
    found += examine_parser(config)
    found += examine_output(config, resume=resume)
    found += _resources(config, facts, machine, device, lenient=elsewhere)
    if for_run and (patient or not found.problems):
        found += examine_prompts(config, facts)
    if found.problems:
        raise ConfigError(found.problems)
    return Preflight(facts, machine, device, tuple(found.notes))


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
