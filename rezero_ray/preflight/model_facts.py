"""What a model's files say about it, read without loading it: config.json and the safetensors headers."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rezero_ray.preflight.known_models import Shape, known_config, known_tensors
from rezero_ray.preflight.weight_files import (
    LFS_POINTER,
    Tensor,
    WeightFileError,
    read_header,
    require_whole_pickle,
)

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_RECURRENT = frozenset({"M", "mamba", "linear_attention"})
_WITHOUT_CACHE = _RECURRENT | {"E", "-", "moe", "mlp"}
_COPY_AGAIN = "download or copy the model again"


class UnreadableModelError(ValueError):
    """A folder that is no model, or a damaged one: a sentence for the user, and what to do where that is known."""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True)
class ModelFacts:
    """`folder` is None where the model is not on this machine and its figures come from `known_models`.

    `tensors` has the shape of every weight, `dtypes` its type as safetensors names it; both are empty where the
    folder holds none as safetensors, and `dtypes` for a model that is not here.
    """

    name: str
    folder: Path | None
    config: Mapping[str, Any]
    tensors: Mapping[str, Shape]
    missing_files: tuple[str, ...] = ()
    dtypes: Mapping[str, str] = field(default_factory=dict)

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

    Raises UnreadableModelError when the folder is there but is no model, or a damaged one.
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
        raise UnreadableModelError(f"{folder} is a file; a model is a directory with config.json")
    config = _read_json(folder / "config.json")
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    missing: tuple[str, ...] = ()
    places: Mapping[str, str] = {}
    if index.exists():
        weights = _read_json(index).get("weight_map")
        places = (
            {str(tensor): str(file) for tensor, file in weights.items()} if isinstance(weights, dict) else {}
        )
        names = sorted(set(places.values()))
        files = [folder / file for file in names if (folder / file).exists()]
        missing = tuple(file for file in names if not (folder / file).exists())
    else:
        missing = _missing_pickles(folder) if not files else ()
    headers = _read_headers(files)
    _require_indexed(index, places, headers)
    every = {tensor: info for header in headers.values() for tensor, info in header.items()}
    layers = ModelFacts(name, folder, config, {}).number("num_hidden_layers")
    used = {tensor: info for tensor, info in every.items() if not _is_beyond(tensor, layers)}
    return ModelFacts(
        name,
        folder,
        config,
        {tensor: info.shape for tensor, info in used.items()},
        missing,
        {tensor: info.dtype for tensor, info in used.items()},
    )


def _missing_pickles(folder: Path) -> tuple[str, ...]:
    """Of a model without safetensors: the files that its index names and that are not there."""
    index = folder / "pytorch_model.bin.index.json"
    weights = _read_json(index).get("weight_map") if index.exists() else None
    names = sorted({str(file) for file in weights.values()}) if isinstance(weights, dict) else []
    _read_headers(file for file in sorted(folder.glob("*.bin")) if not names or file.name in names)
    return tuple(file for file in names if not (folder / file).exists())


def _read_headers(files: Iterable[Path]) -> dict[str, dict[str, Tensor]]:
    """File name -> its tensors; none of a `*.bin`.

    Raises:
        UnreadableModelError: with every file that is damaged.
    """
    headers: dict[str, dict[str, Tensor]] = {}
    damaged: list[str] = []
    for file in files:
        try:
            if file.suffix == ".bin":
                require_whole_pickle(file)
            else:
                headers[file.name] = read_header(file)
        except WeightFileError as error:
            damaged.append(str(error))
        except OSError as error:
            damaged.append(f"{file} cannot be read: {error.strerror}")
    if damaged:
        more = f"; and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        pointer = any("Git LFS pointer" in what for what in damaged)
        raise UnreadableModelError(
            "; ".join(damaged[:3]) + more,
            "run git lfs pull in the model's directory" if pointer else _COPY_AGAIN,
        )
    return headers


def _require_indexed(
    index: Path, places: Mapping[str, str], headers: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Raises UnreadableModelError where a file lacks a tensor that the index says it has."""
    for tensor, file in places.items():
        if file in headers and tensor not in headers[file]:
            raise UnreadableModelError(
                f"{index.parent / file} has no tensor {tensor}, which {index.name} says it has", _COPY_AGAIN
            )


def _is_beyond(tensor: str, layers: int | None) -> bool:
    """Whether it belongs to a layer past the last: multi-token prediction, which neither side runs."""
    layer = _LAYER.search(tensor)
    return layers is not None and layer is not None and int(layer[1]) >= layers


def _read_json(file: Path) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
        if raw.startswith(LFS_POINTER):
            raise UnreadableModelError(
                f"{file} is a Git LFS pointer of {len(raw)} bytes",
                "run git lfs pull in the model's directory",
            )
        value = json.loads(raw.decode("utf-8"))
    except FileNotFoundError:
        raise UnreadableModelError(f"{file.parent} holds no {file.name}: not a Hugging Face model") from None
    except UnreadableModelError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableModelError(f"{file} cannot be read: {error}", _COPY_AGAIN) from None
    if not isinstance(value, dict):
        raise UnreadableModelError(f"{file} is not a JSON object", _COPY_AGAIN)
    return value
