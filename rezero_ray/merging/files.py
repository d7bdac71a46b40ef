"""The merged model's files: W + (alpha / rank) B A for every adapted weight, all others as they are.

The sum is taken in fp32 from the base model's own file, one file at a time: a model needs the memory of its largest
file, not of itself. Names and files stay those of the base.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save_file

from rezero_ray.config import ConfigError, Origin, Problem
from rezero_ray.records import Adapter

INDEX = "model.safetensors.index.json"

MERGEABLE = (torch.bfloat16, torch.float16, torch.float32)

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}


@dataclass(frozen=True)
class Change:
    """W' = W + scale * b @ a; a [rank, input], b [output, rank], fp32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.float() + self.scale * (self.b @ self.a)


@dataclass
class Rounding:
    """What writing the merged weights in their data type did, over all adapted weights.

    `changed` of `weights` differ from the base's; `lost` and `wanted` are sums of squares: of what rounding took
    from the change, and of the change. `in_fp32`: all were written so.
    """

    weights: int = 0
    changed: int = 0
    lost: float = 0.0
    wanted: float = 0.0
    in_fp32: bool = True

    @property
    def lost_share(self) -> float:
        """Norm of what was lost over norm of the change."""
        return (self.lost / self.wanted) ** 0.5 if self.wanted else 0.0

    def add(self, base: torch.Tensor, exact: torch.Tensor, written: torch.Tensor) -> None:
        before, after = base.float(), written.float()
        self.in_fp32 &= written.dtype == torch.float32
        self.weights += before.numel()
        self.changed += int((before != after).sum())
        self.lost += float((after - exact).double().square().sum())
        self.wanted += float((exact - before).double().square().sum())


def merge_files(base: Path, adapter: Adapter, output: Path, dtype: torch.dtype | None) -> Rounding:
    """Write base and adapter as one model into the directory `output`, which exists and is empty.

    Args:
        base: a model directory with safetensors.
        dtype: of all weights; those of the base when None.

    Raises:
        ConfigError: the adapter does not fit the base, or the base is quantized.
    """
    changes = _changes(adapter, base)
    rounding = Rounding()
    sizes: dict[str, int] = {}
    for file in _weight_files(base):
        merged = {}
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.offset_keys():
                merged[name] = _merged(name, tensors.get_tensor(name), changes, dtype, rounding, base)
        sizes |= {name: tensor.numel() * tensor.element_size() for name, tensor in merged.items()}
        save_file(merged, output / file.name, metadata={"format": "pt"})
    _copy_others(base, output, dtype, sum(sizes.values()))
    return rounding


def _merged(
    name: str,
    weight: torch.Tensor,
    changes: Mapping[str, Change],
    dtype: torch.dtype | None,
    rounding: Rounding,
    base: Path,
) -> torch.Tensor:
    kind = dtype if dtype is not None and weight.dtype in MERGEABLE else weight.dtype
    change = changes.get(name)
    if change is None:
        return weight.to(kind)
    if weight.dtype not in MERGEABLE:
        what = f"{name} is {weight.dtype}: a quantized model takes no adapter into its weights"
        raise _wrong(base, what, "merge into the unquantized base: --model.name ...")
    exact = change.of(weight)
    written = exact.to(kind)
    rounding.add(weight, exact, written)
    return written


def _changes(adapter: Adapter, base: Path) -> dict[str, Change]:
    """The base's tensor name -> its change. Raises ConfigError: a module is not there, or of another shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(base):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.offset_keys()}
    description = json.loads(adapter.config)
    scale = description["lora_alpha"] / description["r"]
    matrices = {name: tensor.float() for name, tensor in load(bytes(adapter.weights.data)).items()}
    found = {}
    for name, a in matrices.items():
        if not name.endswith(".lora_A.weight"):
            continue
        b = matrices[name.replace(".lora_A.", ".lora_B.")]
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        weight = _weight_of(module, shapes, base)
        if shapes[weight] != (b.shape[0], a.shape[1]):
            what = f"{weight} is {shapes[weight]}, the adapter's {(b.shape[0], a.shape[1])}"
            raise _wrong(base, what, "name the model that the run trained: --model.name ...")
        found[weight] = Change(a, b, scale)
    return found


def _weight_of(module: str, shapes: Mapping[str, Any], base: Path) -> str:
    """The tensor of a module, whatever the file has before `layers.N`: some files and classes differ there."""
    exact = f"{module}.weight"
    if exact in shapes:
        return exact
    tail = exact[exact.find("layers.") :]
    alike = [name for name in shapes if name.endswith(f".{tail}")]
    if len(alike) != 1:
        what = f"has {len(alike)} weights for the adapter's module {module}"
        raise _wrong(base, what, "name the model that the run trained: --model.name ...")
    return alike[0]


def _weight_files(base: Path) -> list[Path]:
    index = base / INDEX
    if index.exists():
        return [
            base / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        ]
    files = sorted(base.glob("*.safetensors"))
    if not files:
        raise _wrong(base, "holds no safetensors", "merge into a model that is saved as safetensors")
    return files


def _copy_others(base: Path, output: Path, dtype: torch.dtype | None, size: int) -> None:
    """Tokenizer, configuration, the model's own code: everything at the top that holds no weights."""
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix not in _WEIGHTS and not file.name.startswith("."):
            shutil.copyfile(file, output / file.name)
    if dtype is not None:
        _rewrite(
            output / "config.json", lambda config: _with_dtype(config, str(dtype).removeprefix("torch."))
        )
    if (output / INDEX).exists():
        _rewrite(output / INDEX, lambda index: index | {"metadata": {"total_size": size}})


def _with_dtype(config: dict[str, Any], name: str) -> dict[str, Any]:
    """`dtype` (`torch_dtype` in older files) at the top and in nested configurations that have one."""
    changed = {
        key: _with_dtype(value, name) if isinstance(value, dict) else value for key, value in config.items()
    }
    return changed | {key: name for key in ("dtype", "torch_dtype") if key in config}


def _rewrite(file: Path, change: Any) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text("utf-8"))), indent=2) + "\n", "utf-8")


def _wrong(base: Path, what: str, remedy: str) -> ConfigError:
    return ConfigError([Problem("", what, remedy, origin=Origin(str(base)))])
