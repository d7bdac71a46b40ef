"""Is the model here, and is it the one that the config speaks of? Read from its files, without loading it."""

import difflib
from pathlib import Path
from typing import Literal

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.architecture import Architecture
from rezero_ray.preflight.engine_limits import engine_limits
from rezero_ray.preflight.findings import Findings, together
from rezero_ray.preflight.learner_limits import learner_limits
from rezero_ray.preflight.model_facts import ModelFacts, UnreadableModelError, find_model
from rezero_ray.preflight.weight_files import LFS_POINTER
from rezero_ray.preflight.weights import weight_faults

SMOLLM2 = "models/SmolLM2-135M-Instruct"

_TARGETS = "trainer.model.lora.target_modules"
_NEMOTRON_H = "nemotron_h"
_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")


Purpose = Literal["train", "evaluate", "serve"]


def examine_model(
    config: Config, *, must_be_here: bool, elsewhere: bool = False, purpose: Purpose | None = None
) -> tuple[ModelFacts | None, Findings]:
    """The model's facts (None where there are none) and what is wrong with the config in their light.

    `must_be_here`: a run needs the weights; a dry run may be for another machine, and gets a note.
    `elsewhere`: the run is for another machine, which may have a directory that this one lacks.
    `purpose`: what the model is for; when None, to be trained where the config has a learner, else to be evaluated.
    What only training or adapters need is not asked of a model that is served.
    """
    name = config.model.name
    try:
        facts = find_model(name)
    except UnreadableModelError as error:
        remedy = error.remedy or _how_to_get(name)
        return None, Findings([Problem("model.name", str(error), remedy, shown(name))])
    presence = _presence(name, facts, must_be_here, elsewhere)
    if facts is None:
        return None, presence + _mla(config, None)
    purpose = purpose or ("train" if config.trainer_gpu_ids else "evaluate")
    checks = (_weights, _mla, _mamba, _modules, _length, _heads)
    files = _template(name, facts) + _tokenizer(name, facts)
    limits = _limits(config, facts, purpose)
    return facts, presence + limits + together(check(config, facts) for check in checks) + files


def _presence(name: str, facts: ModelFacts | None, must_be_here: bool, elsewhere: bool) -> Findings:
    if facts is not None and facts.folder is not None:
        if not facts.missing_files:
            if must_be_here and not any(True for kind in _WEIGHTS for _ in facts.folder.glob(kind)):
                what = f"{facts.folder} holds no weights ({', '.join(_WEIGHTS)})"
                return Findings([Problem("model.name", what, _how_to_complete(name), shown(name))])
            return Findings()
        what = f"{facts.folder} lacks {', '.join(facts.missing_files[:3])}"
        if len(facts.missing_files) > 3:
            what += f" and {len(facts.missing_files) - 3} more"
        return Findings([Problem("model.name", what, _how_to_complete(name), shown(name))])
    if elsewhere and name.startswith("/"):
        return Findings(
            notes=[f"model {name} is not on this machine: it is checked where the run takes place"]
        )
    if must_be_here or not _is_hub_id(name):
        what = "not found on this machine"
        return Findings([Problem("model.name", what, _how_to_get(name), shown(name))])
    known = "planned from its known shapes" if facts else "its figures and target modules are not checked"
    return Findings(notes=[f"model {name} is not on this machine: {known} ({_how_to_get(name)})"])


def _is_hub_id(name: str) -> bool:
    """`owner/name`, and not a path: `models/...` is where this repository puts its own."""
    return len(name.split("/")) == 2 and not name.startswith((".", "~", "/", "models/"))


def _how_to_get(name: str) -> str:
    if name.rstrip("/") == SMOLLM2:
        return "make it: python -m rezero_ray.models.smollm2"
    if _is_hub_id(name):
        return f"fetch it once: hf download {name}"
    return (
        "name an existing directory (relative to the current one) or a hub id such as zai-org/GLM-4.7-Flash"
    )


def _how_to_complete(name: str) -> str:
    """For a directory that is a model and lacks some of its files."""
    known = name.rstrip("/") == SMOLLM2 or _is_hub_id(name)
    return _how_to_get(name) if known else "download or copy the model again"


def _mla(config: Config, facts: ModelFacts | None) -> Findings:
    """`kv_b_proj` of multi-head latent attention: vLLM (0.30 to 0.33) splits the base weight once into the
    matrices of its decode kernel and never applies an adapter to them. vllm-project/vllm issue 48974."""
    latent = facts is None or facts.multi_head_latent_attention
    if "kv_b_proj" not in config.trainer.model.lora.target_modules or not latent:
        return Findings()
    if config.weight_sync.mode != "adapter":
        return Findings()
    return Findings(
        [
            Problem(
                _TARGETS,
                "kv_b_proj belongs to multi-head latent attention (MLA), where vLLM's decode uses the base "
                "weight: the engine would silently ignore its adapter",
                'drop "kv_b_proj" from target_modules, or set weight_sync.mode = "merged" '
                "(which this version does not offer yet)",
                shown(config.trainer.model.lora.target_modules),
            )
        ]
    )


def _limits(config: Config, facts: ModelFacts, purpose: Purpose) -> Findings:
    """What the engine with adapters, and the learner, cannot do with this architecture."""
    model, name = Architecture(facts), shown(config.model.name)
    limits = engine_limits(model, config) if purpose != "serve" else []
    limits += learner_limits(model, config) if purpose == "train" else []
    return Findings(
        [Problem("model.name", limit.what, limit.remedy, name, others=limit.others) for limit in limits]
    )


def _weights(config: Config, facts: ModelFacts) -> Findings:
    """Tensors that are not those of the model that config.json describes."""
    remedy = "download or copy the model again; config.json and the weights must belong together"
    name = shown(config.model.name)
    faults = weight_faults(Architecture(facts)) if not facts.missing_files else []
    return Findings([Problem("model.name", what, remedy, name) for what in faults])


def _mamba(config: Config, facts: ModelFacts) -> Findings:
    """PEFT takes no adapter on the `out_proj` of Nemotron-H's mixers: a fused kernel takes that weight past the
    module."""
    kind, modules = facts.config.get("model_type"), config.trainer.model.lora.target_modules
    if "out_proj" not in modules or kind != _NEMOTRON_H:
        return Findings()
    what = f"PEFT takes no adapter on the out_proj of {facts.name}: Mamba's fused kernel would pass it by"
    return Findings([Problem(_TARGETS, what, 'drop "out_proj"; in_proj can be trained', shown(modules))])


def _modules(config: Config, facts: ModelFacts) -> Findings:
    wanted, available = config.trainer.model.lora.target_modules, sorted(facts.linear_modules)
    if not facts.tensors:
        return Findings(notes=[f"{facts.folder} holds no safetensors: target modules are not checked"])
    findings = Findings()
    for name in wanted:
        if name in available:
            continue
        close = difflib.get_close_matches(name, available, n=2, cutoff=0.5)
        nearest = f"the nearest are {' and '.join(close)}; " if close else ""
        findings.problems.append(
            Problem(
                _TARGETS,
                f"{facts.name} has no linear module {name}",
                f"{nearest}it has {', '.join(available)}",
                shown(wanted),
            )
        )
    return findings


def _length(config: Config, facts: ModelFacts) -> Findings:
    longest = facts.number("max_position_embeddings")
    if longest is None or config.seq_len <= longest:
        return Findings()
    what = f"{facts.name} knows {longest} positions"
    return Findings([Problem("seq_len", what, f"write at most {longest}", shown(config.seq_len))])


def _heads(config: Config, facts: ModelFacts) -> Findings:
    tensor_parallel, heads = config.inference.parallel.tp, facts.number("num_attention_heads")
    if heads is None or heads % tensor_parallel == 0:
        return Findings()
    what = f"vLLM cannot divide the {heads} attention heads of {facts.name} by it"
    remedy = f"write a divisor of {heads}"
    return Findings([Problem("inference.parallel.tp", what, remedy, shown(tensor_parallel))])


def _template(name: str, facts: ModelFacts) -> Findings:
    """Environments give chat messages; without a template nobody knows how the model writes them."""
    folder = facts.folder
    if folder is None or any((folder / f"chat_template{suffix}").exists() for suffix in (".jinja", ".json")):
        return Findings()
    if (folder / "tokenizer_config.json").exists():
        text = (folder / "tokenizer_config.json").read_text("utf-8", errors="replace")
        if '"chat_template"' in text:
            return Findings()
    what = f"{folder} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)"
    return Findings([Problem("model.name", what, "take an instruction-tuned model", shown(name))])


def _tokenizer(name: str, facts: ModelFacts) -> Findings:
    folder = facts.folder
    if folder is None:
        return Findings()
    there = [folder / file for file in _TOKENIZER_FILES if (folder / file).exists()]
    if not there:
        what = f"{folder} has no tokenizer ({', '.join(_TOKENIZER_FILES)})"
        return Findings([Problem("model.name", what, _how_to_get(name), shown(name))])
    pointers = [file for file in there if _starts_with(file, LFS_POINTER)]
    remedy = "run git lfs pull in the model's directory"
    return Findings(
        [Problem("model.name", f"{file} is a Git LFS pointer", remedy, shown(name)) for file in pointers]
    )


def _starts_with(file: Path, start: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(start)) == start
