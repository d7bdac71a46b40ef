"""Claims about `rezero doctor` on this machine, with Ray and three gloo ranks, and about what a run keeps of it."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rezero_ray.place.report import CACHE, every_finding, from_json
from tests.run.train_process import ROOT, ObservedRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTING = {"GLOO_SOCKET_IFNAME": "lo"}


def test_three_ranks_are_measured_where_the_recipe_puts_them(tmp_path: Path) -> None:
    files = ["configs/redteam.toml", "configs/overlays/cpu.toml"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "rezero_ray.cli",
            "doctor",
            *files,
            "--output_dir",
            str(tmp_path / "run"),
            "--json",
        ],
        cwd=ROOT,
        env=os.environ | {CACHE: str(tmp_path / "cache"), **SETTING},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    report = from_json(done.stdout)
    assert done.returncode == (1 if report.verdict == "bad" else 0), done.stderr
    assert report.ranks is not None
    assert report.ranks.backend == "gloo"
    assert len(report.ranks.hosts) == len(report.ranks.computes) == 3
    assert report.ranks.bus_gb_s is not None
    assert report.ranks.bus_gb_s > 0.01
    assert report.ranks.latency_us is not None
    assert report.ranks.latency_us < 1e6
    found = {finding.what: finding for finding in every_finding(report)}
    assert found["all-reduce"].needed.startswith("0.010 GB of gradients a step")
    assert "GiB (1 x " in found["memory"].needed
    assert report.ranks.variables.items() >= SETTING.items(), (
        "what is set before the command reaches the ranks"
    )
    assert not (tmp_path / "run").exists()
    assert not list(Path("/dev/shm").glob(".rezero-doctor-*"))
    assert_ended(str(tmp_path))


def assert_ended(mark: str) -> None:
    """No process has `mark` in its environment any more."""
    deadline = time.monotonic() + 20
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def processes_with(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_text("utf-8", errors="replace"):
                found.append((path.parent / "cmdline").read_text("utf-8", errors="replace"))
    return found


def test_a_run_keeps_what_it_found_of_its_place(finished_run: ObservedRun) -> None:
    report = from_json((finished_run.output / "doctor.json").read_bytes())
    run = json.loads((finished_run.output / "run.json").read_text("utf-8"))
    assert report.by == "run"
    assert report.device == run["hardware"]["device"] == "cpu"
    assert report.made >= run["started"]
    (machine,) = report.machines
    assert machine.figures.shm.write_gb_s is not None
    assert machine.figures.disk is not None
    assert machine.figures.disk.path == str(finished_run.output)
    memory = next(finding for finding in machine.findings if finding.what == "memory")
    assert "GiB (1 x " in memory.needed
    for finding in machine.findings:
        assert finding.verdict == "ok" or f"{finding.what} is {finding.verdict}: " in finished_run.text
    assert not list(finished_run.output.glob(".rezero-doctor-*"))
