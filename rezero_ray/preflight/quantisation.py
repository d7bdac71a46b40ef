"""Quantised checkpoints, told from config.json, the model's other files and the tensors' types."""

from collections.abc import Iterator

from rezero_ray.config import Config
from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.limit import Limit

_FLOATS = frozenset({"F32", "F16", "BF16"})


def quantised(model: Architecture, config: Config) -> Iterator[Limit]:
    """At most one limit: how it can be told that the weights are quantised."""
    remedy = "choose the bf16 checkpoint of the model; the learner trains on unquantised weights"
    for key in ("quantization_config", "compression_config"):
        setting = model.setting(key)
        if setting is not None and setting.value:
            method = setting.value.get("quant_method") if isinstance(setting.value, dict) else None
            named = f"quant_method = {method!r}".replace("'", '"') if method else "set"
            yield Limit(
                f"config.json has {setting.key} ({named}): quantised checkpoints are not supported", remedy
            )
            return
    folder = model.facts.folder
    for file in ("hf_quant_config.json", "quantize_config.json", "quant_config.json"):
        if folder is not None and (folder / file).exists():
            yield Limit(f"the model has {file}: quantised checkpoints are not supported", remedy)
            return
    for tensor, dtype in model.facts.dtypes.items():
        if tensor.endswith(".weight") and dtype not in _FLOATS:
            yield Limit(f"{tensor} has the type {dtype}: quantised checkpoints are not supported", remedy)
            return
