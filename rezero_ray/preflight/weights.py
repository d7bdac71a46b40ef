"""Do the tensors that the headers describe make the model of config.json? Names and shapes only."""

import re
from collections.abc import Callable, Iterator
from itertools import islice

from rezero_ray.preflight.architecture import Architecture

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def weight_faults(model: Architecture) -> list[str]:
    """What Transformers would fill with random numbers or refuse to load; empty without safetensors."""
    if not model.facts.tensors:
        return []
    return [fault for check in _CHECKS for fault in check(model)]


def _layers(model: Architecture) -> Iterator[str]:
    """Transformers gives a layer without weights random ones."""
    layers = model.value("num_hidden_layers")
    found = {int(layer[1]) for name in model.facts.tensors if (layer := _LAYER.search(name))}
    if not found or not isinstance(layers, int):
        return
    count = layers - sum(layer < layers for layer in found)
    if count > 0:
        missing = list(islice((layer for layer in range(layers) if layer not in found), 3))
        which = ", ".join(map(str, missing)) + (", ..." if count > 3 else "")
        yield f"config.json has num_hidden_layers = {layers}, and the weights have no layer {which}"


def _embedding(model: Architecture) -> Iterator[str]:
    rows = model.value("vocab_size")
    width = model.value("word_embed_proj_dim") or model.value("hidden_size")
    if not isinstance(rows, int) or not isinstance(width, int):
        return
    for name, shape in model.facts.tensors.items():
        embedding = name.endswith(".embed_tokens.weight") or name == "embed_tokens.weight"
        if (embedding or name == "lm_head.weight") and shape != (rows, width):
            yield (
                f"{name} has the shape {list(shape)}, and config.json describes [{rows}, {width}] (vocab_size, "
                "hidden_size)"
            )


def _head(model: Architecture) -> Iterator[str]:
    """An output head that is neither there nor the embedding would be random numbers."""
    names = model.facts.tensors
    has_embedding = any(name.endswith("embed_tokens.weight") for name in names)
    has_head = any(name.endswith("lm_head.weight") for name in names)
    tied = model.setting("tie_word_embeddings")
    if has_embedding and not has_head and tied is not None and tied.value is False:
        yield f"the weights have no lm_head.weight, and {tied}"


def _projections(model: Architecture) -> Iterator[str]:
    """The projections of attention read the hidden state."""
    hidden = model.value("hidden_size")
    for name, shape in model.facts.tensors.items():
        if not name.endswith(
            (".self_attn.q_proj.weight", ".self_attn.k_proj.weight", ".self_attn.v_proj.weight")
        ):
            continue
        if isinstance(hidden, int) and len(shape) == 2 and shape[1] != hidden:
            yield f"{name} has the shape {list(shape)}, and config.json has hidden_size = {hidden}"
            return


_CHECKS: tuple[Callable[[Architecture], Iterator[str]], ...] = (_layers, _embedding, _head, _projections)
