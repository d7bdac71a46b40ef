"""`rezero check` on the demo's model and a request with nineteen mistakes of every kind."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.record_builders import SMOLLM2

ROOT = Path(__file__).parents[2]

LONG_AND_GENEROUS = """
import verifiers as vf
from datasets import Dataset

def generous(completion) -> float:
    return 7.0

def load_environment():
    rows = [{"prompt": [{"role": "user", "content": "word " * 600}], "answer": "-"}]
    return vf.SingleTurnEnv(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[generous]))
"""

PLANTED = re.compile(r"# (?P<key>[\w.]+): (?P<remedy>.+)")


@pytest.mark.slow
def test_every_mistake_is_told_in_one_pass_with_its_line_key_and_remedy(tmp_path: Path) -> None:
    text = (Path(__file__).parent / "planted.toml").read_text("utf-8")
    request = tmp_path / "planted.toml"
    request.write_text(text.replace("models/SmolLM2-135M-Instruct", str(SMOLLM2)), "utf-8")
    (tmp_path / "long_and_generous.py").write_text(LONG_AND_GENEROUS, "utf-8")
    planted = {
        number: found
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := PLANTED.search(line))
    }
    assert len(planted) == 19

    before, started = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "rezero_ray.cli", "check", "planted.toml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    after, wall = os.times(), time.monotonic() - started
    used = after.children_user - before.children_user + after.children_system - before.children_system

    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    told = {}
    for problem in done.stderr.removeprefix("error: ").split("\nerror: "):
        head, _, remedy = problem.partition("\n    ")
        place = re.match(r"planted\.toml:(\d+): ([\w.]+)( =|:)", head)
        assert place, f"no file, line and key: {problem}"
        told[int(place[1]), place[2]] = remedy
    assert set(told) == {(number, found["key"]) for number, found in planted.items()}, done.stderr
    for number, found in planted.items():
        assert found["remedy"].strip() in told[number, found["key"]], done.stderr
    assert min(wall, used / 2) < 10  # of two cores; other work on the machine does not count
