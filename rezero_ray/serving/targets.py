"""What the words behind `rezero serve` mean: a base model and the adapters that go on it."""

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rezero_ray.checkpoint import load_wanted
from rezero_ray.config import Config, ConfigError, Origin, Problem, Request, read_request
from rezero_ray.config.problems import shown
from rezero_ray.config.resume_changes import same_model
from rezero_ray.preflight.machine import Device, this_machine
from rezero_ray.preflight.model import examine_model
from rezero_ray.preflight.model_facts import ModelFacts, local_folder
from rezero_ray.preflight.processor import examine_processor
from rezero_ray.recorded_run import RecordedRun
from rezero_ray.records import Adapter

HERE = ("--infra.kind", "local")
"""Wherever the run was: what its [infra] asks of the configuration is not asked of a server on this machine."""

_CHECKPOINT = re.compile(r"step_(\d{6,})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter under the name that clients ask for it by, and the base that it was trained on."""

    name: str
    step: int
    adapter: Adapter
    rank: int
    target_modules: tuple[str, ...]
    trained_on: str


@dataclass(frozen=True)
class Served:
    """The base model as `config` names it, the name that clients ask for it by, and the adapters on it."""

    config: Config
    device: Device
    base_name: str
    adapters: tuple[ServedAdapter, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Target:
    """`word` as it was written; `run` is None for a model."""

    word: str
    name: str | None
    path: Path
    run: Path | None
    step: int | None


def find_served(
    words: Sequence[str], *, step: int | None, files: Sequence[Path], overrides: Sequence[str]
) -> Served:
    """Read the runs, or the one model, that `words` name.

    Args:
        words: `[NAME=]RUN`, `[NAME=]RUN/checkpoints/step_N`, or a single model directory or hub id.
        step: of every run that is named without one; its newest whole checkpoint when None.
        files, overrides: laid over the configuration of the first run.

    Raises:
        ConfigError: no such run, checkpoint or model; runs of several bases; an adapter that does not fit.
    """
    targets = [_target(word, step) for word in words]
    runs = [target for target in targets if target.run is not None]
    if not runs and len(targets) == 1:
        _require_model(targets[0].word)
        return _served(model_request(targets[0].word, files, overrides), [])
    for target in targets:
        if target.run is None:
            remedy = "name runs (directories with a config.toml); they bring their base model with them"
            raise _wrong(target.word, "is no run, and a model is served by itself only", remedy)
    adapters = [_adapter(target) for target in runs]
    _require_one_base(runs, adapters)
    assert runs[0].run is not None
    request = RecordedRun(runs[0].run).request(adapters[0].step, files, [*HERE, *overrides])
    return _served(request, adapters)


def _target(word: str, step: int | None) -> _Target:
    name, given = None, word
    if "=" in word and not Path(word).exists():
        name, _, given = word.partition("=")
        if not _NAME.fullmatch(name):
            raise _wrong(word, f"{shown(name)} cannot be a model's name", "use letters, digits, . _ and -")
    path = Path(given).expanduser()
    if (path / "config.toml").is_file():
        return _Target(word, name, path, path, step)
    checkpoint = _CHECKPOINT.fullmatch(path.name)
    run = path.parent.parent
    if checkpoint and path.parent.name == "checkpoints" and (run / "config.toml").is_file():
        return _Target(word, name, path, run, int(checkpoint[1]))
    return _Target(word, name, path, None, None)


def model_request(model: str, files: Sequence[Path], overrides: Sequence[str]) -> Request:
    """A configuration for a model alone: what only training reads is filled in, and not used."""
    named = {"model.name": model, "max_steps": "1", "output_dir": "-"}
    named["orchestrator.env.0.id"] = "phishing-detection"
    flags = [word for key, value in named.items() for word in (f"--{key}", value)]
    return read_request(files, [*flags, *HERE, *overrides])


def _require_model(name: str) -> None:
    folder = local_folder(name)
    if folder is None or not (folder / "config.json").is_file():
        what = "is neither a run (a directory with config.toml) nor a model on this machine"
        remedy = (
            "name the output_dir of a run, a model directory, or a hub id (fetch it once: hf download ID)"
        )
        raise _wrong(name, what, remedy)


def _adapter(target: _Target) -> ServedAdapter:
    assert target.run is not None
    run = RecordedRun(target.run)
    checkpoint = load_wanted(run.path, target.step)
    name = target.name or run.path.resolve().name
    if target.name is None and target.path != target.run:
        name += f"-step{checkpoint.run.step}"
    if not _NAME.fullmatch(name):
        raise _wrong(target.word, f"{shown(name)} cannot be a model's name", f"name it: NAME={target.word}")
    description = json.loads(checkpoint.adapter.config)
    return ServedAdapter(
        name=name,
        step=checkpoint.run.step,
        adapter=checkpoint.adapter,
        rank=int(description["r"]),
        target_modules=tuple(description["target_modules"]),
        trained_on=run.request(checkpoint.run.step).config.model.name,
    )


def _require_one_base(runs: Sequence[_Target], adapters: Sequence[ServedAdapter]) -> None:
    first = adapters[0]
    for target, other in zip(runs[1:], adapters[1:], strict=True):
        if not same_model(other.trained_on, first.trained_on):
            what = f"was trained on {other.trained_on}, {runs[0].word} on {first.trained_on}"
            raise _wrong(target.word, what, "one server has one base model: serve it apart (--serve.port)")
    names: dict[str, str] = {}
    for target, adapter in zip(runs, adapters, strict=True):
        if adapter.name in names:
            what = f"has the name {adapter.name}, as {names[adapter.name]} has"
            raise _wrong(target.word, what, f"give it another: NAME={target.word}")
        names[adapter.name] = target.word


def _served(request: Request, adapters: Sequence[ServedAdapter]) -> Served:
    config = request.config
    modules = sorted({module for adapter in adapters for module in adapter.target_modules})
    if adapters:  # what the engine is told, and what kv_b_proj is looked for in
        lora = config.trainer.model.lora.model_copy(
            update={"target_modules": modules, "rank": max(adapter.rank for adapter in adapters)}
        )
        model = config.trainer.model.model_copy(update={"lora": lora})
        trainer = config.trainer.model_copy(update={"model": model})
        config = config.model_copy(update={"trainer": trainer})
    machine = this_machine()
    device = machine.device(config)
    facts, found = examine_model(config, must_be_here=True, purpose="serve")
    found.problems = [problem for problem in found.problems if not problem.key.startswith("trainer.")]
    if device == "cuda" and not machine.gpu_gib:
        what, remedy = (
            "this machine has no GPU that can be seen",
            "add --device cpu (and --model.dtype float32)",
        )
        found.problems.append(Problem("device", what, remedy, shown(config.device)))
    elif device == "cuda" and max(config.inference_gpu_ids) >= len(machine.gpu_gib):
        what = f"this machine has {len(machine.gpu_gib)} visible GPUs, numbered from 0"
        what += f" ({machine.gpus_hidden})" if machine.gpus_hidden else ""
        remedy = "name others: --inference_gpu_ids '[0]'"
        found.problems.append(Problem("inference_gpu_ids", what, remedy, shown(config.inference_gpu_ids)))
    found += examine_processor(config, device)
    with request.locating():
        if found.problems or facts is None:
            raise ConfigError(found.problems)
    notes = list(found.notes)
    for adapter in adapters:
        _require_fit(adapter, facts)
        if not same_model(adapter.trained_on, config.model.name):
            notes.append(f"{adapter.name} was trained on {adapter.trained_on}, served on {config.model.name}")
    base_name = Path(config.model.name).name if Path(config.model.name).exists() else config.model.name
    if base_name in {adapter.name for adapter in adapters}:
        what = f"{base_name} is the name of the base model"
        raise _wrong(base_name, what, "give the run another: NAME=RUN")
    return Served(config, device, base_name, tuple(adapters), tuple(notes))


def _require_fit(served: ServedAdapter, facts: ModelFacts) -> None:
    """vLLM applies it, and every matrix has the shape of its module in the base model."""
    if "kv_b_proj" in served.target_modules and facts.multi_head_latent_attention:
        what = "has an adapter on kv_b_proj, which vLLM ignores in multi-head latent attention (MLA)"
        raise _wrong(served.name, what, "merge it: rezero export RUN --merge --output DIR; then serve DIR")
    shapes = adapter_shapes(served.adapter)
    for name, (_, width) in shapes.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight").rpartition(".")[2]
        height = shapes[name.replace(".lora_A.", ".lora_B.")][0]
        there = facts.linear_modules.get(module, [])
        if facts.tensors and (height, width) not in there:
            of_base = " or ".join(f"{out} x {into}" for out, into in sorted(set(there))) or "not there"
            what = f"its {module} is {height} x {width}; that of {facts.name} is {of_base}"
            raise _wrong(served.name, what, f"serve it on the model it was trained on: {served.trained_on}")


def adapter_shapes(adapter: Adapter) -> dict[str, tuple[int, int]]:
    """PEFT's tensor names and their shapes, from the header of the safetensors bytes."""
    data = adapter.weights.data
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(bytes(data[8 : 8 + length]))
    return {name: tuple(info["shape"]) for name, info in header.items() if name != "__metadata__"}


def _wrong(where: str, what: str, remedy: str) -> ConfigError:
    return ConfigError([Problem("", what, remedy, origin=Origin(where))])
