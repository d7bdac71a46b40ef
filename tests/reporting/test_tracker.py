"""Claims about the tracker's process: a store that is dead costs a run one line, and some seconds at its end."""

import json
import subprocess
import sys
import time
from pathlib import Path

from rezero_ray.config import dump_toml
from rezero_ray.reporting.tracker import DEAD_SECONDS, Tracker
from rezero_ray.run_directory import RunDirectory
from tests.record_builders import make_config


def test_a_dead_store_does_not_hold_up_a_run_and_is_told_in_one_line_without_a_traceback(
    tmp_path: Path,
) -> None:
    config = make_config(output_dir=str(tmp_path / "run"), mlflow__tracking_uri="http://127.0.0.1:9")
    directory = RunDirectory(config, device="cpu")
    said: list[str] = []
    tracker = Tracker(config, directory.path, said.append, lambda run_id: None)
    began = time.monotonic()
    for step in (1, 2, 3):
        directory.add_metrics({"step": step})
    assert time.monotonic() - began < 10
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    (line,) = said
    assert "MLflow (http://127.0.0.1:9) does not take this run" in line and "refused" in line
    began = time.monotonic()
    tracker.finish("done")
    assert time.monotonic() - began < DEAD_SECONDS + 5
    assert len(said) == 2
    assert said[1].startswith("MLflow lacks steps 1 to 3 (")
    assert said[1].endswith(f"Send them later: rezero track {directory.path}")
    assert not any("Traceback" in line for line in said)
    assert "Traceback" in (directory.path / "tracking.log").read_text()


def test_what_mlflow_prints_does_not_reach_the_events(tmp_path: Path) -> None:
    """MLflow prints a run's address when it ends."""
    program = (
        "import os, pathlib\n"
        "from rezero_ray.reporting import tracker_process\n"
        "tracker_process._lines = lambda: iter(['---'])\n"
        "from rezero_ray.config import Config\n"
        "Config.model_validate = lambda table: print('View run at: http://x', flush=True)\n"
        "tracker_process.main(pathlib.Path('.'))\n"
        "tracker_process._say(note='heard')\n"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert [json.loads(line) for line in found.stdout.splitlines()] == [{"note": "heard"}]
    assert "View run" in found.stderr


def test_the_tracker_ends_by_itself_when_its_run_is_killed(tmp_path: Path) -> None:
    config = make_config(output_dir=str(tmp_path / "run"), mlflow__tracking_uri="http://127.0.0.1:9")
    RunDirectory(config, device="cpu").add_metrics({"step": 1})
    process = subprocess.Popen(
        [sys.executable, "-m", "rezero_ray.reporting.tracker_process", str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{dump_toml(config)}\n---\n".encode())
    process.stdin.close()
    try:
        assert process.wait(60) == 1
    finally:
        process.kill()
    assert "failing" in json.loads(process.stdout.readline())
