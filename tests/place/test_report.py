"""Claims about the report: what a run writes at its start, and what it takes over from `rezero doctor`."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.place.examination import look_at_start, not_judged
from rezero_ray.place.records import Finding
from rezero_ray.place.report import CACHE, Report, as_json, from_json, keep, kept, make_report, pretty
from tests.place.figures import HEALTHY
from tests.record_builders import make_config


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))


def made(**place: Any) -> Report:
    found = [Finding("all-reduce", "hangs", verdict="bad", remedy="NCCL_P2P_DISABLE=1")]
    return make_report(make_config(**place), "cpu", [not_judged(HEALTHY)], found, notes=["a note"])


def test_a_report_is_as_bad_as_its_worst_finding_and_reads_back_the_same() -> None:
    report = made()
    assert report.verdict == "bad"
    assert b"\n" not in as_json(report)
    assert from_json(as_json(report)) == from_json(pretty(report)) == report


def test_a_run_takes_over_what_the_doctor_found_in_the_same_place(tmp_path: Path) -> None:
    keep(made(), make_config())
    same = make_config(max_steps=3, output_dir=str(tmp_path / "run"))
    found = look_at_start(same, "cpu")
    assert found.by == "run"
    assert found.whole == made_at(found.whole)
    for elsewhere in ({"trainer_gpu_ids": [1, 2]}, {"infra__num_cpus": 1}):
        assert kept(make_config(**elsewhere), "cpu") is None
    assert kept(make_config(), "cuda") is None


def made_at(report: Report | None) -> Report:
    """The same report as `made`, of that moment."""
    assert report is not None
    return from_json(as_json(made()).replace(made().made.encode(), report.made.encode()))


def test_what_another_version_wrote_is_left_alone() -> None:
    path = keep(made(), make_config())
    path.write_text('{"machines": 3}')
    assert kept(make_config(), "cpu") is None


def test_the_look_at_a_runs_start_takes_less_than_two_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    report = look_at_start(make_config(output_dir=str(tmp_path)), "cpu")
    assert time.monotonic() - began < 2
    told = json.loads(pretty(report))
    (machine,) = told["machines"]
    assert machine["figures"]["shm"]["write_gb_s"] > 0
    assert machine["figures"]["disk"]["path"] == str(tmp_path)
    assert {finding["what"] for finding in machine["findings"]} >= {
        "memory",
        "shared memory",
        "disk",
    }
    assert told["versions"]["torch"]
    assert list(tmp_path.iterdir()) == []
