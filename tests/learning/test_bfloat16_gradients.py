"""In bfloat16 the gradient of a step is the sum of its micro-batches' gradients: nothing is lost in adding them."""

import importlib.util
import json
from pathlib import Path

import pytest

from actors.rendezvous import open_store
from rezero_ray.models.tiny import make_tiny_llama
from tests.learning.fixed_step import write_adapter
from tests.learning.test_gradient_against_trl import running
from tests.record_builders import SMOLLM2


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="deepspeed is not installed")
def test_micro_batches_are_summed_in_float32(tmp_path: Path) -> None:
    """Summed in bfloat16, which DeepSpeed does where nothing is configured, the distance is 3.2e-3."""
    model, adapter = make_tiny_llama(tmp_path / "model", tokenizer_from=SMOLLM2), tmp_path / "adapter"
    write_adapter(model, adapter)
    store = open_store("127.0.0.1")
    program = {"one": ["bfloat16_gradients", str(model), str(adapter), str(store.port)]}
    with running(program, tmp_path) as processes:
        assert processes["one"].wait(timeout=250) == 0, (tmp_path / "one.log").read_text()[-4000:]
    found = json.loads((tmp_path / "one.json").read_text())
    assert found["micro_batches"] >= 8
    assert found["norm"] > 1e-3
    assert found["distance"] < 1e-5
