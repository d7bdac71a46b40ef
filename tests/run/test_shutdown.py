"""Real runs where they are started and stopped by something else than a person at a terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rezero_ray.checkpoint import load_newest
from tests.run.train_process import (
    ENVIRONMENTS,
    ROOT,
    SMALL,
    TrainProcess,
    descendants,
    noise,
    read_lines,
    still_alive,
)

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(600)]

CRON = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ENVIRONMENTS)}
"""What cron gives: no HOME, no USER, no TERM."""

BOUND_SECONDS = 45.0
"""Ray's own answer to its dead GCS comes after 60 seconds, and is exit status 1."""


def test_under_cron_and_nohup_a_run_trains_and_sigterm_to_all_of_it_at_once_ends_it_with_130(
    tiny_model: Path, tmp_path: Path
) -> None:
    """As systemd and Slurm do: the controller and every process of Ray get the signal at the same moment."""
    steps = ("--max_steps", "400", "--ckpt.keep_last", "2")
    run = TrainProcess(
        tmp_path / "run", *noise(tiny_model, tmp_path), *steps, environment=CRON, before=["nohup"]
    )
    try:
        run.wait_for("Orchestrator Step 1:")
        run.process.send_signal(signal.SIGHUP)
        run.wait_for("Orchestrator Step 2:")
        family = [run.process.pid, *descendants(run.process.pid)]
        assert len(family) > 8
        began = time.monotonic()
        for pid in family:
            os.kill(pid, signal.SIGTERM)
        status = run.wait(120)
        seconds = time.monotonic() - began
    finally:
        run.end()
    assert status == 130, run.text
    assert seconds < BOUND_SECONDS, run.text
    assert "Traceback" not in run.text
    assert json.loads((run.output / "run.json").read_text("utf-8"))["status"] == "interrupted"
    found, _ = load_newest(run.output)
    assert found is not None and found.run.step >= 1
    assert not still_alive(family, 60)


def test_a_run_works_in_a_notebook_and_in_a_thread(tiny_model: Path, toys: None, tmp_path: Path) -> None:
    arguments = [
        *("configs/redteam.toml", "configs/overlays/cpu.toml", *SMALL, *noise(tiny_model, tmp_path)),
        *("--output_dir", str(tmp_path / "run"), "--max_steps", "1"),
    ]
    result = tmp_path / "statuses.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.embedded_run", str(result), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ENVIRONMENTS)])},
    )
    assert result.exists(), done.stdout + done.stderr
    assert json.loads(result.read_text("utf-8")) == [0, 0], done.stdout + done.stderr
    assert [row["step"] for row in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert "Orchestrator Step 2:" in done.stdout
