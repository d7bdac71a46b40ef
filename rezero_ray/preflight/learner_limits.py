"""What the learner's forward pass does not compute, told from config.json and the names of the tensors.

`LIMITS` is the list. When the learner learns to compute something, its entry goes, and with it its cases in
tests/preflight/test_learner_limits.py. `tests/learning/test_families.py` compares the list with what the learner
computes: a model that passes has Transformers' own logprobs.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from rezero_ray.config import Config
from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.limit import Limit
from rezero_ray.preflight.quantisation import quantised


def learner_limits(model: Architecture, config: Config) -> list[Limit]:
    """Everything about the model that the learner would compute differently from the model itself."""
    return [limit for check in LIMITS for limit in check(model, config)]


_WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "local_attention_window_len",
    "attention_chunk_size",
)


def _windows(model: Architecture, config: Config) -> Iterator[Limit]:
    """Windows and chunks of attention matter for sequences longer than they are. 0 turns one off, as in vLLM."""
    for key in _WINDOWS:
        setting = model.setting(key)
        if setting is None or not isinstance(setting.value, int) or not 0 < setting.value < config.seq_len:
            continue
        if _is_off(key, model):
            continue
        yield Limit(
            f"{setting}: some layers attend to that many tokens at most, and the learner's attention has no windows",
            f"write seq_len = {setting.value} or less, or choose a model without a window",
            others=("seq_len",),
        )


def _is_off(key: str, model: Architecture) -> bool:
    """Whether no layer uses the window. A model that does not read the switch, or the list of layers, uses it."""
    if model.has_field("use_sliding_window") and model.value("use_sliding_window") is False:
        return key == "sliding_window"
    kinds = model.layer_kinds if model.has_field("layer_types") else ()
    if kinds:
        return not any(word in kind for kind in kinds for word in ("sliding", "chunk", "local"))
    first, layers = model.value("max_window_layers"), model.value("num_hidden_layers")
    reads_first = model.config_class is not None and model.has_field("max_window_layers")
    return reads_first and isinstance(first, int) and isinstance(layers, int) and first >= layers


_SOFT_CAPS = {
    "attn_logit_softcapping": "attention scores",
    "attention_logit_cap": "attention scores",
    "attn_logit_cap": "attention scores",
    "final_logit_softcapping": "logits",
    "logits_soft_cap": "logits",
    "output_logit_soft_cap": "logits",
}


def _soft_caps(model: Architecture, config: Config) -> Iterator[Limit]:
    for key, capped in _SOFT_CAPS.items():
        setting = model.setting(key)
        if setting is not None and setting.value is not None:
            yield Limit(f"{setting}: the learner does not cap {capped}")


_LOGIT_SCALES = (
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
    "logits_mup_width_multiplier",
    "mup_width_multiplier",
    "output_multiplier",
)


def _logit_scales(model: Architecture, config: Config) -> Iterator[Limit]:
    for key in _LOGIT_SCALES:
        setting = model.setting(key)
        if setting is not None and setting.value not in (None, 1):
            yield Limit(f"{setting}: the learner does not scale logits")
    width = model.setting("dim_model_base")
    if width is not None and width.value not in (None, model.value("hidden_size")):
        yield Limit(f"{width}, which scales the logits; the learner does not scale logits")


_WITH_SINKS = frozenset(
    {"deepseek_v4", "flint", "gpt_oss", "granite_swa", "granitemoe_swa", "hy_v4", "inkling2_text"}
)
_SINK_KEYS = (
    "add_swa_attention_sink_bias",
    "add_full_attention_sink_bias",
    "attention_sink",
    "attention_sinks",
)
_SINK_TENSOR = re.compile(r"\.(sinks?|attn_sinks?|attention_sinks?(_bias)?)(\.weight)?$")


def _sinks(model: Architecture, config: Config) -> Iterator[Limit]:
    what = "the learner's attention has no sinks"
    if model.model_type in _WITH_SINKS:
        yield Limit(f'config.json has model_type = "{model.model_type}", which has attention sinks: {what}')
        return
    for setting in map(model.setting, _SINK_KEYS):
        if setting is not None and setting.value:
            yield Limit(f"{setting}: {what}")
            return
    tensor = next((name for name in model.facts.tensors if _SINK_TENSOR.search(name)), None)
    if tensor is not None:
        yield Limit(f"the weights have attention sinks ({tensor}): {what}")


_HEAD_BIAS = re.compile(r"^(.*\.)?(lm_head|embed_out|output_layer)\.bias$")
_HEAD_BIAS_KEYS: Mapping[str, str | None] = {"lm_head_bias": None, "use_bias": "ernie4_5_moe"}


def _head_bias(model: Architecture, config: Config) -> Iterator[Limit]:
    what = "the output head has a bias, which the learner does not add"
    tensor = next((name for name in model.facts.tensors if _HEAD_BIAS.match(name)), None)
    if tensor is not None:
        yield Limit(f"the weights have {tensor}: {what}")
        return
    if model.model_type == "phi":
        yield Limit(f'config.json has model_type = "phi": {what}')
        return
    for key, only in _HEAD_BIAS_KEYS.items():
        setting = model.setting(key)
        if setting is not None and setting.value and only in (None, model.model_type):
            yield Limit(f"{setting}: {what}")


_RECURRENT_KINDS = frozenset({"M", "mamba", "mamba2", "linear_attention", "recurrent", "conv", "hybrid"})
_RECURRENT_MODELS = """
    bailing_hybrid bamba falcon_h1 falcon_mamba granitemoehybrid jamba kimi_linear lfm2 lfm2_moe lfm3 mamba
    mamba2 minimax olmo_hybrid qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp_text recurrent_gemma rwkv xlstm
    zamba zamba2 zaya
"""
_SEPARATED = "nemotron_h"  # rezero_ray.learning.recurrence


def _recurrence(model: Architecture, config: Config) -> Iterator[Limit]:
    if model.model_type == _SEPARATED:
        return
    what = "the learner would carry the state of its recurrent layers from one sequence into the next"
    remedy = "choose a model of attention layers, or Nemotron-H"
    kinds = sorted(_RECURRENT_KINDS & set(model.layer_kinds))
    if kinds:
        yield Limit(f'config.json lists layers of the kind "{kinds[0]}": {what}', remedy)
    elif model.model_type in _RECURRENT_MODELS.split() and "full_attention" not in model.layer_kinds:
        yield Limit(f'config.json has model_type = "{model.model_type}": {what}', remedy)


_OTHER_ATTENTION = {
    "deepseek_v32": "selects the tokens it attends to",
    "axk2": "selects the tokens it attends to",
    "glm_moe_dsa": "selects the tokens it attends to",
    "glm5_next": "selects the tokens it attends to",
    "doge": "makes an attention mask of its own",
    "inkling_text": "adds position biases to attention scores",
    "gpt_bigcode": "keeps its decoder under another name than model",
    "nemotron": "does not take an attention function",
    "stablelm": "does not take an attention function",
}


def _attention(model: Architecture, config: Config) -> Iterator[Limit]:
    what = "the learner's attention is plain causal attention"
    if model.model_type in _OTHER_ATTENTION:
        yield Limit(
            f'config.json has model_type = "{model.model_type}", which {_OTHER_ATTENTION[model.model_type]}: {what}'
        )
        return
    topk = model.setting("index_topk")
    if topk is not None and topk.value:
        yield Limit(f"{topk}: the model selects the tokens it attends to; {what}")
    for key in ("alibi", "use_bidirectional_attention"):
        setting = model.setting(key)
        if setting is not None and setting.value not in (None, False, "vision"):
            yield Limit(f"{setting}: {what}")
    causal = model.setting("is_causal")
    if causal is not None and causal.value is False:
        yield Limit(f"{causal}: {what}")


_NOISE = re.compile(r"(dropout|pdrop|layerdrop|jitter|drop_path)")
_NOT_IN_DECODER = re.compile(r"(classifier|classif|summary|lora|token_dropout|projector)")


def _noise(model: Architecture, config: Config) -> Iterator[Limit]:
    """Dropout and router noise act in the learner's forward pass, which is in training mode, and not in vLLM."""
    for setting in model.settings():
        name, value = setting.key.rpartition(".")[2], setting.value
        if not _NOISE.search(name) or _NOT_IN_DECODER.search(name):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            yield Limit(
                f"{setting}: the learner would add noise that the engine does not have",
                f"write {name} = 0.0 in the model's config.json",
            )


def _rope(model: Architecture, config: Config) -> Iterator[Limit]:
    """Rotary embeddings whose frequencies depend on the lengths that are computed together."""
    found = [(name, model.value(name)) for name in ("rope_parameters", "rope_scaling")]
    name, rope = next(((name, value) for name, value in found if isinstance(value, dict)), ("", {}))
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "dynamic" and "alpha" not in rope:
        yield Limit(
            f'config.json has {name}.rope_type = "dynamic": vLLM scales all frequencies, Transformers those of long '
            "sequences"
        )
    original = rope.get("original_max_position_embeddings", model.value("original_max_position_embeddings"))
    if kind in ("longrope", "su") and isinstance(original, int) and original < config.seq_len:
        yield Limit(
            f'config.json has {name}.rope_type = "{kind}" with original_max_position_embeddings = {original}: beyond '
            "it the engine always takes the factors for long sequences, the learner decides for each pack",
            f"write seq_len = {original} or less, or choose another model",
            others=("seq_len",),
        )


LIMITS: tuple[Callable[[Architecture, Config], Iterator[Limit]], ...] = (
    _windows,
    _soft_caps,
    _logit_scales,
    _sinks,
    _head_bias,
    _recurrence,
    _attention,
    _noise,
    _rope,
    quantised,
)
