"""Damaged, truncated and missing weights are found before anything starts, from headers and sizes alone."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from rezero_ray.config import ConfigError, load_config
from rezero_ray.preflight import Machine, preflight
from rezero_ray.preflight.weight_files import LFS_POINTER, WeightFileError, read_header
from tests.config.run_request import make_model, write_right, write_weights

MACHINE = Machine(gpu_gib=(), cpus=2, memory_gib=16.0, shm_gib=8.0)
POINTER = LFS_POINTER + b"v1\noid sha256:00\nsize 538090408\n"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def complaint(tmp_path: Path, damage: Callable[[Path], Any], *, for_run: bool = False) -> str:
    request = write_right(tmp_path)
    damage(tmp_path / "model")
    with pytest.raises(ConfigError) as raised:
        preflight(load_config([request]), for_run=for_run, machine=MACHINE)
    return str(raised.value)


def cut(file: Path, size: int) -> None:
    with file.open("r+b") as stream:
        stream.truncate(size)


def rewrite_header(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    changed = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + raw[8 + length :])


def set_config(model: Path, **changes: Any) -> None:
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))


def shard(model: Path, first: dict[str, tuple[int, ...]], index: dict[str, str]) -> None:
    """Two shards: `first` in the first one, all that the model has in the second."""
    (model / "model.safetensors").rename(model / SECOND)
    write_weights(model / FIRST, first)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


EMBEDDING = "model.embed_tokens.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda m: cut(m / "model.safetensors", 0), "is truncated: it has 0 bytes"),
        (lambda m: cut(m / "model.safetensors", 5), "is truncated: it has 5 bytes"),
        (lambda m: cut(m / "model.safetensors", 100), "is truncated: it has 100 of at least"),
        (lambda m: cut(m / "model.safetensors", 5000), "is truncated: it has 5000 of"),
        (lambda m: (m / "model.safetensors").write_bytes(POINTER), "is a Git LFS pointer"),
        (lambda m: (m / "config.json").write_bytes(POINTER), "is a Git LFS pointer"),
        (lambda m: (m / "model.safetensors").open("ab").write(b"more"), "its header describes"),
        (
            lambda m: rewrite_header(m / "model.safetensors", lambda h: h[QUERY].update(shape=[64, 32])),
            f"{QUERY} of shape [64, 32] and type BF16 takes 4096 bytes",
        ),
        (
            lambda m: rewrite_header(m / "model.safetensors", lambda h: h[QUERY].update(dtype="F32")),
            "type F32 takes 16384 bytes",
        ),
        (
            lambda m: rewrite_header(m / "model.safetensors", lambda h: h[QUERY].update(dtype="FLOAT")),
            "has the type FLOAT",
        ),
        (lambda m: rewrite_header(m / "model.safetensors", lambda h: h.pop(QUERY)), "the tensor before it ends"),
        (lambda m: set_config(m, num_hidden_layers=4), "the weights have no layer 2, 3"),
        (lambda m: set_config(m, vocab_size=300), f"{EMBEDDING} has the shape [256, 64], and config.json describes"),
        (lambda m: set_config(m, hidden_size=32), "has hidden_size = 32"),
        (lambda m: set_config(m, tie_word_embeddings=False), "no lm_head.weight"),
        (lambda m: shard(m, {}, {QUERY: FIRST, EMBEDDING: SECOND}), f"has no tensor {QUERY}"),
        (lambda m: shard(m, {}, {QUERY: "model-00003-of-00003.safetensors"}), "lacks model-00003-of-00003"),
        (lambda m: (m / "model.safetensors.index.json").write_text("{"), "model.safetensors.index.json cannot be"),
    ],
)  # fmt: skip
def test_damaged_weights_are_told_by_file(tmp_path: Path, damage: Callable[[Path], Any], told: str) -> None:
    message = complaint(tmp_path, damage)
    assert told in message and "model.name" in message
    assert "name an existing directory" not in message  # the directory is right, its files are not


def test_git_lfs_and_a_new_copy_are_the_remedies(tmp_path: Path) -> None:
    assert "run git lfs pull" in complaint(
        tmp_path / "a", lambda m: (m / "model.safetensors").write_bytes(POINTER)
    )
    assert "download or copy the model again" in complaint(
        tmp_path / "b", lambda m: cut(m / "model.safetensors", 9000)
    )


def pickled(model: Path, damage: Callable[[Path], Any] = lambda file: None) -> None:
    """The model's weights as `torch.save` writes them."""
    (model / "model.safetensors").unlink()
    torch.save({QUERY: torch.zeros(64, 64)}, model / "pytorch_model.bin")
    damage(model / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda file: cut(file, 0), "is truncated"),
        (lambda file: cut(file, 9000), "is truncated"),
        (lambda file: file.write_bytes(POINTER), "is a Git LFS pointer"),
    ],
)
def test_weights_of_torch_save_are_looked_at_too(
    tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    message = complaint(tmp_path / "a", lambda model: pickled(model, damage))
    assert "pytorch_model.bin" in message and told in message
    pickled((write_right(tmp_path / "b")).parent / "model")
    assert preflight(load_config([tmp_path / "b" / "right.toml"]), for_run=False, machine=MACHINE).facts


def test_a_missing_shard_of_torch_save_is_named(tmp_path: Path) -> None:
    def damage(model: Path) -> None:
        pickled(model)
        index = {"weight_map": {QUERY: "pytorch_model.bin", EMBEDDING: "pytorch_model-00002.bin"}}
        (model / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    assert "lacks pytorch_model-00002.bin" in complaint(tmp_path, damage)


def test_a_tokenizer_that_is_a_pointer_is_told(tmp_path: Path) -> None:
    message = complaint(tmp_path, lambda model: (model / "tokenizer.json").write_bytes(POINTER))
    assert "tokenizer.json is a Git LFS pointer" in message and "git lfs pull" in message


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    def damage(model: Path) -> None:
        shard(model, {QUERY: (64, 64)}, {QUERY: FIRST, EMBEDDING: SECOND})
        cut(model / FIRST, 200)
        cut(model / SECOND, 3000)

    message = complaint(tmp_path, damage)
    assert FIRST in message and SECOND in message


def test_a_run_needs_weights_and_a_dry_run_does_not(tmp_path: Path) -> None:
    assert "holds no weights" in complaint(
        tmp_path, lambda m: (m / "model.safetensors").unlink(), for_run=True
    )
    config = load_config([tmp_path / "right.toml"])
    assert preflight(config, for_run=False, machine=MACHINE).facts is not None


def test_the_files_of_a_dry_runs_model_are_not_changed(tmp_path: Path) -> None:
    file = make_model(tmp_path / "model") / "model.safetensors"
    before = file.read_bytes()
    assert set(read_header(file)) >= {EMBEDDING, QUERY}
    assert file.read_bytes() == before


def test_headers_of_every_type_are_read(tmp_path: Path) -> None:
    kinds = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
    ]
    kinds += [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
    tensors = {str(kind): torch.zeros(3, 5, dtype=kind) for kind in kinds}
    save_file(tensors | {"empty": torch.zeros(0, 4), "scalar": torch.zeros(())}, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    assert {name: tensor.shape for name, tensor in header.items()} == {
        **dict.fromkeys(tensors, (3, 5)),
        "empty": (0, 4),
        "scalar": (),
    }


WHOLE = save({"a": torch.zeros(4, 3), "b": torch.zeros(2, dtype=torch.bfloat16)}, metadata={"format": "pt"})


@settings(max_examples=100, deadline=None)
@given(size=st.integers(0, len(WHOLE)), byte=st.integers(0, len(WHOLE) - 1), flip=st.integers(0, 255))
def test_whatever_safetensors_opens_is_accepted_and_a_cut_file_never_is(
    tmp_path_factory: pytest.TempPathFactory, size: int, byte: int, flip: int
) -> None:
    """One byte of the header or of the data is another, and the file is cut."""
    raw = bytearray(WHOLE)
    raw[byte] ^= flip
    file = tmp_path_factory.getbasetemp() / "cut.safetensors"
    file.write_bytes(raw[:size] if size % 3 else raw)
    try:
        with safetensors.safe_open(file, "pt") as opened:
            opens = bool(list(opened.keys()))
    except Exception:
        opens = False
    try:
        read_header(file)
        accepted = True
    except WeightFileError:
        accepted = False
    assert accepted >= opens  # never refuse what can be loaded
    if size % 3 and size < len(WHOLE):
        assert not accepted
