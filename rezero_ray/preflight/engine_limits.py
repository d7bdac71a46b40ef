"""What vLLM, its LoRA or Transformers cannot do with a model, told from config.json.

`LIMITS` is the list, as in `learner_limits`.
"""

import difflib
import re
from collections.abc import Callable, Iterator

from rezero_ray.config import Config
from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.engine_architectures import NEED_TORCHVISION, VLLM, WITH_LORA, WITHOUT_LORA
from rezero_ray.preflight.limit import Limit
from rezero_ray.preflight.transformers_source import causal_classes, model_types

_TEXT_MODEL = "choose an instruction-tuned text model, such as Qwen3, Llama, GLM-4 or SmolLM2"
_OTHER_SENSES = re.compile(r"^(vision|visual|image|audio|speech|video|thinker|talker)\w*_config$")


def engine_limits(model: Architecture, config: Config) -> list[Limit]:
    """Everything about the model that keeps vLLM from serving adapters of it, or Transformers from loading it."""
    return [limit for check in LIMITS for limit in check(model, config)]


def _model_type(model: Architecture, config: Config) -> Iterator[Limit]:
    kind, known = model.facts.config.get("model_type"), model_types()
    remote = "auto_map" in model.facts.config
    if remote and config.trainer.model.trust_remote_code and config.inference.model.trust_remote_code:
        return
    if not isinstance(kind, str):
        yield Limit(
            "config.json has no model_type: Transformers does not know what to load",
            "add it, or name the directory of a Hugging Face model",
        )
    elif known and kind not in known:
        close = difflib.get_close_matches(kind, known, n=1)
        nearest = f'; the nearest that it knows is "{close[0]}"' if close else ""
        yield Limit(
            f'config.json has model_type = "{kind}", which the installed Transformers does not know{nearest}',
            "set trainer.model.trust_remote_code and inference.model.trust_remote_code to true: the model brings its "
            "own code"
            if remote
            else _TEXT_MODEL,
            others=("trainer.model.trust_remote_code", "inference.model.trust_remote_code") if remote else (),
        )


def _kind(model: Architecture, config: Config) -> Iterator[Limit]:
    """Whether it is a decoder of text and nothing else."""
    decoder = model.setting("is_encoder_decoder")
    if decoder is not None and decoder.value is True:
        yield Limit(f"{decoder}: encoder-decoders are not supported", _TEXT_MODEL)
        return
    for key, value in model.facts.config.items():
        if _OTHER_SENSES.search(key) and value:
            yield Limit(
                f"config.json has {key}: models that read images or audio are not supported", _TEXT_MODEL
            )
            return
    yield from _architecture(model)


def _architecture(model: Architecture) -> Iterator[Limit]:
    names, causal = model.architectures, causal_classes()
    expected = causal.get(model.model_type or "")
    if not names:
        write = f'"architectures": ["{expected}"]' if expected in WITH_LORA else '"architectures": [...]'
        yield Limit(
            "config.json has no architectures: vLLM does not know what to load",
            f"add {write} to it",
        )
        return
    name = names[0]
    shown = f'config.json has architectures = ["{name}"]'
    if name in WITH_LORA:
        return
    if name in WITHOUT_LORA:
        yield Limit(f"{shown}, for which vLLM {VLLM} has no LoRA", _TEXT_MODEL)
    elif name in NEED_TORCHVISION:
        yield Limit(f"{shown}, for which vLLM {VLLM} needs torchvision, which is not installed", _TEXT_MODEL)
    elif causal and name not in causal.values() and "auto_map" not in model.facts.config:
        yield Limit(
            f"{shown}, which is not a model that writes text (Transformers has no such causal language model)",
            _TEXT_MODEL,
        )
    else:
        yield Limit(f"{shown}, which vLLM {VLLM} does not list among its text models", _TEXT_MODEL)


LIMITS: tuple[Callable[[Architecture, Config], Iterator[Limit]], ...] = (_model_type, _kind)
