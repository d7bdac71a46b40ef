"""One step's gradient norm is TRL's, on one rank and on three, however the work is cut into micro-batches.

The same token ids, rewards and starting adapter (A and B noise) go through TRL's own `GRPOTrainer` and
through our DeepSpeed ZeRO-3 learner, both in float32 on a tiny Llama. The inference logprobs are the policy's
own, so every ratio is one and no clip acts; the norm is the one before clipping.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from actors.rendezvous import open_store
from rezero_ray.models.tiny import make_tiny_llama
from tests.learning.fixed_step import LOSSES, write_adapter
from tests.learning.learner_norms import SPLITS
from tests.record_builders import SMOLLM2

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed")
        for name in ("trl", "deepspeed")
    ),
]

ROOT = Path(__file__).parents[2]
WORLDS = (1, 2, 3)
LIMIT = 270.0


class Norms(NamedTuple):
    """Gradient norms: TRL's by loss, ours by number of ranks, loss and split."""

    trl: dict[str, float]
    ours: dict[int, dict[str, dict[str, float]]]


@pytest.fixture(scope="module")
def norms(tmp_path_factory: pytest.TempPathFactory) -> Norms:
    """All programs side by side: most of their time goes into imports."""
    folder = tmp_path_factory.mktemp("norms")
    model, adapter = make_tiny_llama(folder / "model", tokenizer_from=SMOLLM2), folder / "adapter"
    write_adapter(model, adapter)
    given = [str(model), str(adapter)]
    programs = {"trl": ["trl_norms", *given]}
    stores = {world: open_store("127.0.0.1") for world in WORLDS}
    for world, store in stores.items():
        for rank in range(world):
            programs[f"{world}-{rank}"] = ["learner_norms", *given, str(rank), str(world), str(store.port)]
    with running(programs, folder) as processes:
        for name, process in processes.items():
            status = process.wait(timeout=LIMIT)
            assert status == 0, f"{name}: {Path(folder, f'{name}.log').read_text()[-4000:]}"
    results = {name: json.loads((folder / f"{name}.json").read_text()) for name in programs}
    for world in WORLDS:
        assert all(results[f"{world}-{rank}"] == results[f"{world}-0"] for rank in range(world))
    return Norms(trl=results["trl"], ours={world: results[f"{world}-0"] for world in WORLDS})


@contextmanager
def running(programs: dict[str, list[str]], folder: Path) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Start every program with its result file as the last argument; none outlives the context."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    processes = {}
    try:
        for name, (module, *arguments) in programs.items():
            command = [
                sys.executable,
                "-m",
                f"tests.learning.{module}",
                *arguments,
                str(folder / f"{name}.json"),
            ]
            with (folder / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_norm_is_that_of_trl(norms: Norms, loss: str, world: int) -> None:
    assert norms.trl[loss] > 1e-3
    for split in SPLITS:
        assert norms.ours[world][loss][split] == pytest.approx(norms.trl[loss], rel=1e-3), split


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_norm_does_not_depend_on_ranks_or_micro_batches(norms: Norms, loss: str) -> None:
    reference = norms.ours[1][loss]["large micro-batches"]
    for world in WORLDS:
        for split, found in norms.ours[world][loss].items():
            assert found == pytest.approx(reference, rel=1e-4), (world, split)


def test_the_losses_tell_apart(norms: Norms) -> None:
    assert len({round(value, 4) for value in norms.trl.values()}) == len(LOSSES)
