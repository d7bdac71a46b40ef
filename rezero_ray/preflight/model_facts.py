"""What a model's files say about it, read without loading it: config.json and the safetensors headers."""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rezero_ray.preflight.known_models import Shape, known_config, known_tensors

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_RECURRENT = frozenset({"M", "mamba", "linear_attention"})
_WITHOUT_CACHE = _RECURRENT | {"E", "-", "moe", "mlp"}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class ModelFacts:
    """`folder` is None where the model is not on this machine and its figures come from `known_models`.

    `tensors` has the shape of every weight; empty where the folder holds none as safetensors.
    """

    name: str
    folder: Path | None
    config: Mapping[str, Any]
    tensors: Mapping[str, Shape]
    missing_files: tuple[str, ...] = ()

    @property
    def multi_head_latent_attention(self) -> bool:
        return self.number("kv_lora_rank") is not None

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors.values())

    def number(self, key: str) -> int | None:
        """An integer of config.json; multimodal models keep the language model's under `text_config`."""
        nested = self.config.get("text_config")
        for table in (self.config, nested if isinstance(nested, Mapping) else {}):
            if isinstance(table.get(key), int):
                return int(table[key])
        return None

    @cached_property
    def layer_kinds(self) -> tuple[str, ...]:
        """A hybrid model's kind of each layer, in its own words; empty where all layers are alike."""
        for key in ("hybrid_override_pattern", "layers_block_type", "layer_types"):
            kinds = self.config.get(key)
            if isinstance(kinds, str | list) and kinds:
                return tuple(map(str, kinds))
        return ()

    @property
    def attention_layers(self) -> int | None:
        """Layers that keep keys and values of every token."""
        if not self.layer_kinds:
            return self.number("num_hidden_layers")
        return sum(kind not in _WITHOUT_CACHE for kind in self.layer_kinds)

    @property
    def recurrent_layers(self) -> int:
        """Layers that keep a state of fixed size for a sequence, whatever its length (Mamba)."""
        return sum(kind in _RECURRENT for kind in self.layer_kinds)

    @cached_property
    def largest_layer(self) -> int:
        """Parameters of the largest layer."""
        sizes: dict[str, int] = {}
        for name, shape in self.tensors.items():
            if layer := _LAYER.search(name):
                sizes[layer[1]] = sizes.get(layer[1], 0) + math.prod(shape)
        return max(sizes.values(), default=0)

    @cached_property
    def linear_modules(self) -> dict[str, list[Shape]]:
        """Last part of the name -> shapes (out, in) of the linear modules that an adapter can be put on.

        Left out: embeddings and output head, and experts (fused parameters in transformers, no modules).
        """
        modules: dict[str, list[Shape]] = {}
        for name, shape in self.tensors.items():
            module, _, kind = name.rpartition(".")
            if kind != "weight" or len(shape) != 2 or not _LAYER.search(name) or ".experts." in name:
                continue
            modules.setdefault(module.rpartition(".")[2], []).append(shape)
        return modules


def find_model(name: str) -> ModelFacts | None:
    """The model in a local folder or in the hub's local cache, else what is known of it, else None.

    Raises ValueError, with a sentence for the user, when the folder is there but is no model.
    """
    folder = local_folder(name)
    if folder is not None:
        return _read_folder(name, folder)
    config = known_config(name)
    return ModelFacts(name, None, config, known_tensors(name)) if config else None


def local_folder(name: str) -> Path | None:
    """The folder of a model on this machine; no network is used."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if len(name.split("/")) != 2 or name.startswith((".", "~", "/")):
        return None
    from huggingface_hub.constants import HF_HUB_CACHE  # its try_to_load_from_cache takes a second to import

    cached = Path(HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
    try:
        snapshot = cached / "snapshots" / (cached / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return snapshot if (snapshot / "config.json").exists() else None


def _read_folder(name: str, folder: Path) -> ModelFacts:
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; a model is a directory with config.json")
    config = _read_json(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    missing: tuple[str, ...] = ()
    if index.exists():
        weights = _read_json(index).get("weight_map")
        names = sorted({str(file) for file in weights.values()}) if isinstance(weights, dict) else []
        files = [folder / file for file in names if (folder / file).exists()]
        missing = tuple(file for file in names if not (folder / file).exists())
    facts = ModelFacts(name, folder, config, {}, missing)
    layers = facts.number("num_hidden_layers")
    tensors = {tensor: shape for file in files for tensor, shape in _safetensors_header(file).items()}
    used = {tensor: shape for tensor, shape in tensors.items() if not _is_beyond(tensor, layers)}
    return replace(facts, tensors=used)


def _is_beyond(tensor: str, layers: int | None) -> bool:
    """Whether it belongs to a layer past the last: multi-token prediction, which neither side runs."""
    layer = _LAYER.search(tensor)
    return layers is not None and layer is not None and int(layer[1]) >= layers


def _safetensors_header(file: Path) -> dict[str, Shape]:
    """Names and shapes out of a file's JSON header: 8 bytes length, then the header; no weight is read."""
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER_BYTES + 1
        raw = stream.read(length) if length <= _MAX_HEADER_BYTES else b""
    try:
        header = json.loads(raw)
        return {name: tuple(info["shape"]) for name, info in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is not a safetensors file, or is damaged") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file.parent} holds no {file.name}: not a Hugging Face model") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} is not a JSON object")
    return value
