"""A right request, and what comes of it with one thing changed. No run is ever started."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from rezero_ray import train

RIGHT = """\
inference_gpu_ids = [0]
trainer_gpu_ids = [1, 2, 3]
max_steps = 20
seq_len = 512
output_dir = "{output}"
device = "cpu"

[model]
name = "{model}"

[trainer.model.lora]
rank = 16
alpha = 32
target_modules = ["q_proj", "o_proj"]

[trainer.optim]
lr = 1e-3

[trainer.loss]
token_mask_low = 0.125

[orchestrator]
batch_size = 8
rollouts_per_example = 8

[orchestrator.sampling]
max_tokens = 64

[orchestrator.advantage]
normalize = "std"

[[orchestrator.env]]
id = "phishing-detection"

[inference.model]
max_model_len = 512

[inference.parallel]
dp = 1
"""


def make_model(folder: Path, *, latent: bool = False) -> Path:
    """A model's files with weights of zeros: config.json, safetensors (sparse), a chat template, a tokenizer."""
    folder.mkdir(parents=True)
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256}
    config |= {"max_position_embeddings": 2048, "tie_word_embeddings": True}
    kind, architecture = ("deepseek_v3", "DeepseekV3ForCausalLM") if latent else ("llama", "LlamaForCausalLM")
    config |= {"model_type": kind, "architectures": [architecture]} | ({"kv_lora_rank": 16} if latent else {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "tokenizer.model").write_bytes(b"")
    projections = ["q_proj", "k_proj", "v_proj", "o_proj"]
    if latent:
        projections = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
    tensors = {"model.embed_tokens.weight": (256, 64)}
    tensors |= {
        f"model.layers.{layer}.self_attn.{name}.weight": (64, 64)
        for layer in range(2)
        for name in projections
    }
    write_weights(folder / "model.safetensors", tensors)
    return folder


def write_weights(
    file: Path, tensors: Mapping[str, tuple[int, ...]], *, dtype: str = "BF16", itemsize: int = 2
) -> Path:
    """A safetensors file of zeros."""
    header: dict[str, object] = {}
    at = 0
    for name, shape in tensors.items():
        end = at + math.prod(shape) * itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with file.open("r+b") as stream:
        stream.truncate(8 + len(raw) + at)
    return file


def write_right(folder: Path) -> Path:
    """The right request as `right.toml` in `folder`, its model beside it."""
    make_model(folder / "model")
    request = folder / "right.toml"
    request.write_text(RIGHT.format(output=folder / "out", model=folder / "model"))
    return request


def files_under(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """What is printed about a wrong request; asserts exit status 2 and no traceback."""
    status = train.main([str(argument) for argument in argv])
    printed = capsys.readouterr()
    assert status == 2, printed.out + printed.err
    assert "Traceback" not in printed.err
    assert "nothing was started" in printed.err
    return printed.err
