"""Claims about the GPU trial: each stage runs at small scale on the CPU, every section of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["stage1_torch", "stage2_deepspeed"])
def test_a_stage_runs_every_section_on_the_cpu(stage: str, tmp_path: Path) -> None:
    out = tmp_path / "stage.json"
    command = [
        sys.executable,
        "-m",
        f"benchmarks.gpu.{stage}",
        "--device",
        "cpu",
        "--small",
        "--seconds",
        "540",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    sections = json.loads(out.read_text())["sections"]
    assert sections
    assert not [name for name, entry in sections.items() if not entry.get("rows")]
    rows = [row for entry in sections.values() for row in entry["rows"]]
    assert not [row for row in rows if "error" in row]
