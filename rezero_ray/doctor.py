"""`rezero doctor [TOML ...]`: measures the place that a run would have, says what is too small, slow or broken."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rezero_ray.config import Config, read_request
from rezero_ray.config.flags import split_arguments
from rezero_ray.errors import RunError
from rezero_ray.place.examination import facts_of, judged, not_judged
from rezero_ray.place.exchange import judge_ranks, judge_volume, no_all_reduce
from rezero_ray.place.machine import FULL, measure_machine
from rezero_ray.place.needs import exchanged_gb, machine_needs
from rezero_ray.place.records import Finding, MachineFigures, RanksFigures, VolumeFigures
from rezero_ray.place.report import MachineReport, Report, as_json, from_json, keep, make_report, with_volume
from rezero_ray.preflight.machine import Device, this_machine
from rezero_ray.reporting.doctor_table import print_report

if TYPE_CHECKING:
    from actors.node_examiner import NodeFigures

OK, BAD = 0, 1

NODE_SECONDS = 120.0  # for every node to be examined: two seconds where nothing is wrong

STAND_IN = {
    "max_steps": "1",
    "output_dir": ".",
    "model.name": "-",
    "orchestrator.env.0.id": "none",
    "inference.gpu_memory_utilization": "0.5",
}
"""What a config must have, for a place that no run is named for."""

_EPILOG = """\
With a TOML: the place that it names, measured against what its run needs. [infra] kind = "ray": every node that its
bundles go to. kind = "modal": a container like the run's, which is rented for some minutes. Such a report is kept
(~/.cache/rezero_ray/doctor), and a run in the same place takes it into its doctor.json.

Without a TOML: this machine.

exit status:
  0 nothing is bad (low is told)   1 something is bad   2 the request is wrong
"""


def main(argv: Sequence[str]) -> int:
    """Prints the report; returns 0, or 1 where something is bad.

    Raises:
        ConfigError: the request is wrong.
    """
    own, overrides = split_arguments([word for word in argv if word != "--json"])
    options = _parser().parse_args(own)
    files, as_lines = options.files, "--json" in argv
    request = read_request(files, overrides) if files else read_request([], stand_in(overrides))
    try:
        with request.locating():
            report = _report(request.config, named=bool(files))
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        return BAD
    if as_lines:
        print(as_json(report).decode(), flush=True)
    else:
        print_report(report)
    return BAD if report.verdict == "bad" else OK


def stand_in(overrides: Sequence[str]) -> list[str]:
    """A config with all GPUs of this machine as ranks, or two ranks on the CPU; flags win."""
    ranks = list(range(len(this_machine().gpu_gib))) or [1, 2]
    keys = {**STAND_IN, "trainer_gpu_ids": str(ranks)}
    return [*(f"--{key}={value}" for key, value in keys.items()), *overrides]


def _report(config: Config, *, named: bool) -> Report:
    if config.infra.elsewhere():
        report = _elsewhere(config)
    else:
        report = _here(config, this_machine().device(config), named=named)
    if not named:
        return report
    try:
        keep(report, config)
    except OSError as error:
        report = msgspec.structs.replace(report, notes=[*report.notes, f"the report is not kept: {error}"])
    return report


def _here(config: Config, device: Device, *, named: bool) -> Report:
    """The place of which this process is the driver."""
    machines: list[MachineReport] = []
    notes = []
    if named and facts_of(config) is None:
        notes.append(f"{config.model.name} is not on this machine: what it needs is not known")
    if config.infra.on_this_machine():
        figures = measure_machine(Path(config.output_dir), FULL)
        machines.append(_machine(figures, config, device, named=named))
        if _lacks_gpus(figures, config, device):
            what = "not measured: the GPUs of its ranks are not here"
            found = Finding(
                "all-reduce", what, "", "bad", "give the machine its GPUs, or name those that it has"
            )
            return make_report(config, device, machines, [found], notes=notes)
    try:
        nodes, ranks, failure = _with_ray(config, device)
    except RunError as error:
        remedy = "a run would end in the same way: see docs/infra.md"
        failed = Finding("Ray cluster", error.message, "", "bad", remedy)
        return make_report(config, device, machines, [failed], notes=notes)
    machines += nodes
    findings = [failure] if failure else []
    if ranks is not None:
        gb, what = exchanged_gb(config, facts_of(config)) if named else (0.0, "")
        findings += judge_ranks(ranks, gb, what, config.limits.train_step)
    return make_report(config, device, machines, findings, ranks=ranks, notes=notes)


def _machine(figures: MachineFigures, config: Config, device: Device, *, named: bool) -> MachineReport:
    if not named:
        return not_judged(figures)
    engines, ranks = config.inference.parallel.dp, len(config.trainer_gpu_ids)
    return judged(figures, config, device, engines=engines, ranks=ranks)


def _lacks_gpus(figures: MachineFigures, config: Config, device: Device) -> bool:
    return device == "cuda" and len(figures.gpus) <= max(config.trainer_gpu_ids)


def _with_ray(
    config: Config, device: Device
) -> tuple[list[MachineReport], RanksFigures | None, Finding | None]:
    """The nodes of a cluster that is somebody's, and the ranks in their seats, or why there are no figures of them.

    Raises:
        RunError: there is no cluster, or it has no place for the bundles.
    """
    from actors.all_reduce import measure_ranks
    from actors.node_examiner import examine_nodes
    from actors.placement import reserved, seating_here
    from infra.bootstrap import start_cluster

    gpus = len({*config.inference_gpu_ids, *config.trainer_gpu_ids}) if device == "cuda" else 0
    with start_cluster(_without_dashboard(config), gpus=gpus):
        plan = seating_here(config, device)
        with reserved(plan, config.limits.cluster) as group:
            nodes: list[MachineReport] = []
            if not config.infra.on_this_machine():
                disk = Path(config.output_dir).expanduser().absolute()  # a worker's folder is another
                looked = examine_nodes(plan, group, disk=disk, effort=FULL, seconds=NODE_SECONDS)
                nodes = [_node(node, config, device) for node in looked]
            try:
                return nodes, measure_ranks(plan, group, device=device, dtype=config.model.dtype), None
            except RunError as error:
                return nodes, None, no_all_reduce(error.message, device=device, nodes=max(1, len(nodes)))


def _node(node: "NodeFigures", config: Config, device: Device) -> MachineReport:
    roles = f"{node.engines} engines, {node.ranks} learner ranks" + ", the driver" * node.is_drivers
    return judged(node.figures, config, device, engines=node.engines, ranks=node.ranks, roles=roles)


def _without_dashboard(config: Config) -> Config:
    if not hasattr(config.infra, "dashboard"):
        return config
    return config.model_copy(update={"infra": config.infra.model_copy(update={"dashboard": False})})


def _elsewhere(config: Config) -> Report:
    """The same command in the place that the backend gets, and what only the backend could measure there.

    Raises:
        ConfigError: the backend has no doctor, or refuses.
        RunError: the command failed there.
    """
    from infra.doctor import examine_there

    answer = examine_there(config)
    try:
        report = from_json(answer.report)
    except msgspec.DecodeError:
        said = answer.errors.strip() or answer.report.strip() or "it said nothing"
        raise RunError("cluster", f"the doctor failed there: {said}") from None
    if answer.volume is None:
        return report
    volume = msgspec.convert(answer.volume, VolumeFigures)
    needs = machine_needs(config, facts_of(config), "cuda", engines=0, ranks=0, writes=True)
    return with_volume(report, volume, judge_volume(volume, needs.checkpoint_gib))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero doctor",
        usage="%(prog)s [A.toml B.toml ...] [--dotted.key value ...] [--json]",
        description="Measure the place of a run: memory, shared memory, disk, GPUs, what the ranks exchange.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="TOML", help="configuration; later files win")
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON")
    return parser
