"""The learner's state after some recorded steps does not depend on where it was saved and taken up again."""

import importlib.util
from pathlib import Path

import pytest

from actors.rendezvous import open_store
from rezero_ray.models.tiny import make_tiny_llama
from tests.learning.interrupted_steps import STEPS
from tests.learning.test_gradient_against_trl import running
from tests.record_builders import SMOLLM2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed"),
]

WORLDS = (1, 2)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rank first; then two, from where it stood after its first step."""
    folder = tmp_path_factory.mktemp("interrupted")
    model = make_tiny_llama(folder / "model", tokenizer_from=SMOLLM2)
    for world in WORLDS:
        store = open_store("127.0.0.1")
        given = [str(model), str(folder)]
        programs = {
            f"{world}-{rank}": ["interrupted_steps", *given, str(rank), str(world), str(store.port)]
            for rank in range(world)
        }
        with running(programs, folder) as processes:
            for name, process in processes.items():
                assert process.wait(timeout=200) == 0, Path(folder, f"{name}.log").read_text()[-4000:]
    return folder / "states"


def test_it_is_the_same_to_the_bit_wherever_the_run_was_interrupted(states: Path) -> None:
    whole = (states / f"whole-{STEPS}.safetensors").read_bytes()
    assert whole != (states / "whole-2.safetensors").read_bytes()
    for step in range(1, STEPS):
        assert (states / f"interrupted-after-{step}.safetensors").read_bytes() == whole


def test_on_another_number_of_ranks_it_is_the_same_up_to_rounding(states: Path) -> None:
    import safetensors.torch
    import torch

    whole = safetensors.torch.load_file(states / f"whole-{STEPS}.safetensors")
    first = safetensors.torch.load_file(states / "whole-1.safetensors")
    found = safetensors.torch.load_file(states / "2-ranks.safetensors")
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
    learned = [name for name in whole if name.startswith("param/")]
    assert any(not torch.allclose(first[name], whole[name], rtol=1e-3, atol=1e-5) for name in learned)
