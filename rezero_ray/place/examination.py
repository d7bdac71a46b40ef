"""Measurements of machines, judged by what a config wants of them."""

from pathlib import Path

from rezero_ray.config import Config
from rezero_ray.place.machine import QUICK, measure_machine
from rezero_ray.place.needs import Needs, machine_needs
from rezero_ray.place.records import MachineFigures
from rezero_ray.place.report import MachineReport, Report, kept, make_report
from rezero_ray.place.verdicts import judge_machine
from rezero_ray.preflight.machine import Device
from rezero_ray.preflight.model_facts import ModelFacts, find_model


def facts_of(config: Config) -> ModelFacts | None:
    """What the model's files say; None where there are none, or they are damaged (the preflight tells that)."""
    try:
        return find_model(config.model.name)
    except ValueError:
        return None


def judged(
    figures: MachineFigures, config: Config, device: Device, *, engines: int, ranks: int, roles: str = ""
) -> MachineReport:
    """A machine with so many engine replicas and learner ranks on it."""
    needs = machine_needs(
        config, facts_of(config), device, engines=engines, ranks=ranks, writes=figures.disk is not None
    )
    return MachineReport(figures, judge_machine(figures, needs), roles)


def not_judged(figures: MachineFigures) -> MachineReport:
    """A machine that nothing is asked of: only what is wrong with any is told."""
    return MachineReport(figures, judge_machine(figures, Needs()))


def look_at_start(config: Config, device: Device) -> Report:
    """What a run finds of the machine that it was started on, in less than two seconds, and what `rezero doctor` last
    found of the whole place."""
    figures = measure_machine(Path(config.output_dir), QUICK)
    engines, ranks = (
        (config.inference.parallel.dp, len(config.trainer_gpu_ids))
        if config.infra.on_this_machine()
        else (0, 0)
    )
    machine = judged(figures, config, device, engines=engines, ranks=ranks)
    return make_report(config, device, [machine], by="run", whole=kept(config, device))
