"""Every option of every loss, in a step of the real learner."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.models.tiny import make_tiny_llama
from tests.keys.loss_variants import VARIANTS, changed
from tests.learning.fixed_step import write_adapter
from tests.record_builders import SMOLLM2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, float]]]:
    folder = tmp_path_factory.mktemp("losses")
    model = make_tiny_llama(folder / "model", tokenizer_from=SMOLLM2)
    write_adapter(model, folder / "adapter")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.keys.loss_variants"),
            *map(str, (model, folder / "adapter", folder / "result.json")),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads((folder / "result.json").read_text()))


@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=[f"{k} {changed(p, o)}" for k, p, o in VARIANTS])
def test_each_option_changes_the_step_and_the_loss_is_the_pure_functions(
    steps: list[list[dict[str, float]]], number: int
) -> None:
    plain, other = steps[number]
    for step in (plain, other):
        assert step["loss"] == pytest.approx(step["pure"], rel=1e-4, abs=1e-6)
    assert other["grad_norm"] != pytest.approx(plain["grad_norm"], rel=1e-5)
