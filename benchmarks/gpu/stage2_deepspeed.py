"""Stage 2: the learner as it runs, DeepSpeed ZeRO-3 on one rank, on a slice of GLM-4.7-Flash.

    python -m benchmarks.gpu.stage2_deepspeed --device cuda --out stage2.json
    python -m benchmarks.gpu.stage2_deepspeed --device cpu --small --out stage2.json

On top of stage 1 it needs DeepSpeed. Weights are random. A step is timed against the same policy without DeepSpeed,
and its memory is held against the plan.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.model_folder import fast_folder, write_model
from benchmarks.gpu.packs import long_pack, short_pack
from benchmarks.gpu.slice import TARGETS, glm_config
from benchmarks.gpu.step_timing import Clock, timed_steps
from benchmarks.gpu.trial import Rows, Trial, arguments, milliseconds, relative_error
from benchmarks.gpu.watched_learner import (
    WatchedLearner,
    accumulate_in_bfloat16,
    accumulate_in_float32,
    joined,
)
from rezero_ray.config.schema import Config
from rezero_ray.learning.policy import build_policy, micro_batch_tensors
from rezero_ray.losses import build_loss
from rezero_ray.preflight.memory import learner_need
from rezero_ray.preflight.model_facts import find_model
from rezero_ray.records import MicroBatch

RUNTIME_CALLS = ("cudaLaunch", "cuLaunch", "cudaMemcpy", "cudaStreamSync", "cudaEventSync", "cudaMalloc")
"""How the profiler names the host's calls that launch, copy, wait and allocate begin."""


class Stage:
    """The model, its learner and its loads, each made when it is first asked for."""

    def __init__(self, trial: Trial, folder: Path) -> None:
        self.trial, self._folder = trial, folder
        self.layers = 2 if trial.small else 4
        self._learner: WatchedLearner | None = None
        self._loads: dict[str, list[MicroBatch]] = {}

    def model(self, layers: int) -> Path:
        path = self._folder / f"layers-{layers}"
        if not path.exists():
            write_model(glm_config(self.trial.small, layers), path, self.trial.device)
        return path

    def config(self, layers: int | None = None, *, kl_coef: float = 0.0, lr: float = 5e-6) -> Config:
        return Config.model_validate(
            {
                "max_steps": 1000,
                "seq_len": 16_384,
                "output_dir": "unused",
                "device": self.trial.device.type,
                "inference_gpu_ids": [0],
                "trainer_gpu_ids": [0],
                "model": {"name": str(self.model(layers or self.layers))},
                "trainer": {
                    "model": {"lora": {"rank": 16, "alpha": 32.0, "target_modules": TARGETS}},
                    "optim": {"lr": lr},
                    "loss": {"type": "importance_sampling", "kl_coef": kl_coef},
                },
                "orchestrator": {"env": [{"id": "phishing-detection"}]},
            }
        )

    @property
    def learner(self) -> WatchedLearner:
        if self._learner is None:
            self._learner = WatchedLearner(self.config(), self.trial.device.type)
        return self._learner

    def close_learner(self) -> None:
        if self._learner is not None:
            self._learner.close()
            self._learner = None

    def load(self, name: str) -> list[MicroBatch]:
        """Micro-batches of one step: `short`, 100 segments each, or `long`, 10."""
        if name not in self._loads:
            vocabulary = glm_config(self.trial.small).vocab_size
            make: Callable[..., MicroBatch] = short_pack if name == "short" else long_pack
            tiny = {"trees": 2, "prompt": 20} if name == "short" else {"trees": 1, "prompt": 8, "turns": 160}
            size = tiny if self.trial.small else {}
            batches = [make(vocabulary, seed=seed, **size) for seed in range(2 if self.trial.small else 4)]
            self._loads[name] = self.learner.on_policy(batches)
        return self._loads[name]


def start(stage: Stage) -> Rows:
    """Seconds and memory until the learner is ready, and until it has taken a step."""
    with Clock(stage.trial) as model:
        stage.model(stage.layers)
    with Clock(stage.trial) as loading:
        counts = stage.learner.learner.parameter_counts()
    with Clock(stage.trial) as first:
        stage.learner.step(stage.load("short"))
    return [
        {"what": "writing the model", "seconds": model.seconds},
        {"what": "starting the learner", "seconds": loading.seconds, **counts},
        {"what": "probe and first step", "seconds": first.seconds},
    ]


def steps(stage: Stage) -> Rows:
    """Tokens a second of whole steps, fraction of peak, peak memory and the plan for it."""
    rows: Rows = []
    for name in ("short", "long"):
        batches = stage.load(name)
        row = timed_steps(stage.trial, partial(stage.learner.step, batches), batches)
        rows.append({"load": name, "loop": "DeepSpeed", **row, **planned(stage, batches)})
    return rows


def bare(stage: Stage) -> Rows:
    """The same policy, loss and optimizer without DeepSpeed."""
    from actors.deepspeed_learner import loss_options

    loads = {name: stage.load(name) for name in ("short", "long")}
    stage.close_learner()
    config, device = stage.config(), stage.trial.device
    policy = build_policy(config).to(device)
    parameters = [parameter for _, parameter in policy.adapter_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-6)
    loss = build_loss(loss_options(config))
    names = ("inference_logprobs", "advantages", "loss_mask", "sequence_ids")

    def step(batches: Sequence[MicroBatch]) -> None:
        normalizer = float(sum(len(batch.targets) for batch in batches))
        for batch in batches:
            logprobs, _ = policy(**micro_batch_tensors(batch, device))
            rest = [torch.as_tensor(getattr(batch, name), device=device) for name in names]
            loss(logprobs, *rest, normalizer=normalizer).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    rows: Rows = []
    for name, batches in loads.items():
        row = timed_steps(stage.trial, partial(step, batches), batches)
        rows.append({"load": name, "loop": "bare", **row})
    return rows


def planned(stage: Stage, batches: Sequence[MicroBatch]) -> dict[str, Any]:
    """GiB by `rezero_ray.preflight.memory`, as a whole and by term, for the fullest micro-batch."""
    config = stage.config()
    facts = find_model(config.model.name)
    assert facts is not None
    need = learner_need(
        config, facts, stage.trial.device.type, tokens=max(len(batch.token_ids) for batch in batches)
    )
    terms = "; ".join(f"{term.what} {term.bytes / 2**30:.2f}" for term in need.terms)
    return {"planned GiB": need.bytes / 2**30, "terms": terms}


def kernels(stage: Stage) -> Rows:
    """A step of one micro-batch: kernels by time, launches, and how long the GPU is busy. Whole table in the JSON."""
    from torch.profiler import ProfilerActivity, profile

    cuda = stage.trial.device.type == "cuda"
    rows: Rows = []
    for name in ("short", "long"):
        batch = stage.load(name)[:1]
        for _ in range(3):  # ZeRO-3's trace is that of a step of one micro-batch then
            with Clock(stage.trial) as plain:
                stage.learner.step(batch)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
            stage.learner.step(batch)
        events = found.key_averages()
        host = sorted(events, key=lambda event: -event.self_cpu_time_total)
        device = [event for event in events if str(event.device_type).endswith("CUDA")]
        device.sort(key=lambda event: -event.self_device_time_total)
        calls = {event.key: event.count for event in events if event.key.startswith(RUNTIME_CALLS)}
        stage.trial.result.setdefault("profiles", {})[name] = {
            "calls": calls,
            "device": [[e.key[:160], e.count, round(e.self_device_time_total / 1e3, 3)] for e in device[:25]],
            "host": [[e.key[:160], e.count, round(e.self_cpu_time_total / 1e3, 3)] for e in host[:25]],
        }
        rows.append(
            {
                "load": name,
                "ms": plain.seconds * 1e3,
                "GPU busy ms": sum(event.self_device_time_total for event in device) / 1e3,
                "host ms": sum(event.self_cpu_time_total for event in host) / 1e3,
                "launches": sum(count for key, count in calls.items() if "Launch" in key),
                "longest": (device or host)[0].key[:60],
            }
        )
    return rows


def waits(stage: Stage) -> Rows:
    """Where a step of two micro-batches waits for the GPU, as torch's debug mode for synchronisation has it."""
    batches = stage.load("short")[:2]
    if stage.trial.device.type != "cuda":
        return [{"where": "a CPU is not waited for", "times": 0}]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stage.learner.step(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places: dict[str, int] = {}
    for warning in caught:
        if "synchroniz" in str(warning.message):
            place = f"{'/'.join(Path(warning.filename).parts[-3:])}:{warning.lineno}"
            places[place] = places.get(place, 0) + 1
    ranked = sorted(places.items(), key=lambda item: -item[1])
    return [{"where": "all", "times": sum(places.values())}] + [
        {"where": place, "times": times} for place, times in ranked[:20]
    ]


def traces(stage: Stage) -> Rows:
    """ZeRO-3's trace in four steps of each kind: passes, those with a trace, traces dropped.

    With and without KL, with one micro-batch and with several, and with a forward pass alone, as a run's agreement
    check has it, before a step's only micro-batch (last, so that it begins without a trace).
    """
    batches, rows = stage.load("long"), Rows()
    count = 2 if stage.trial.small else 4
    kinds = [(0.0, 1, False), (0.0, count, False), (0.01, 1, False), (0.01, count, False), (0.0, 1, True)]
    for kl_coef, micro_batches, probe in kinds:
        stage.learner.learner.use_loss(stage.config(kl_coef=kl_coef))
        found = []
        with Clock(stage.trial) as clock:
            for _ in range(4):
                stage.learner.clear_counts()
                if probe:
                    stage.learner.learner.logprobs(batches[0])
                stage.learner.step(batches[:micro_batches])
                found.append(dict(stage.learner.counts))
        row: dict[str, Any] = {"kl_coef": kl_coef, "micro-batches": micro_batches, "probe": probe}
        row |= {key: " ".join(str(step[key]) for step in found) for key in found[0]}
        rows.append({**row, "seconds": clock.seconds / 4})
    stage.learner.learner.use_loss(stage.config())
    return rows


def accumulation(stage: Stage) -> Rows:
    """Sixteen micro-batches against one, gradients summed by DeepSpeed in float32 and in bfloat16.

    The yardstick is the float64 sum of the gradients of the sixteen, so that what is seen is the summation alone;
    one micro-batch in their place rounds elsewhere, too.
    """
    stage.close_learner()
    config = stage.config(2, lr=1e-12)
    vocabulary, count = glm_config(stage.trial.small).vocab_size, 4 if stage.trial.small else 16
    size = {"trees": 1, "prompt": 20} if stage.trial.small else {"trees": 1, "prompt": 400}
    parts = [short_pack(vocabulary, seed=seed, **size) for seed in range(count)]
    tokens = sum(len(part.targets) for part in parts)
    exact: torch.Tensor | None = None
    rows: Rows = []
    for name, change in (("float32", accumulate_in_float32), ("bfloat16", accumulate_in_bfloat16)):
        learner = WatchedLearner(config, stage.trial.device.type, change)
        parts = parts if exact is not None else learner.on_policy(parts)
        if exact is None:
            exact = torch.stack([learner.gradient([part], tokens) for part in parts]).sum(0)
        apart = learner.gradient(parts, tokens)
        together = learner.gradient([joined(parts)], tokens)
        learner.close()
        rows.append(
            {
                "summed in": name,
                "micro-batches": count,
                "apart": relative_error(apart, exact),
                "in one": relative_error(together, exact),
                "norm": float(exact.norm()),
            }
        )
    return rows


def product(stage: Stage) -> Rows:
    """Rate of a bfloat16 product: the ceiling that steps are held against."""
    device, edge = stage.trial.device, 256 if stage.trial.small else 8192
    a, b = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    stage.trial.result["peak_tflops"] = 2 * edge**3 / milliseconds(lambda: a @ b, device) / 1e9
    return [{"what": f"bf16 product of {edge}^3", "TFLOP/s": stage.trial.result["peak_tflops"]}]


STAGES: tuple[tuple[Callable[[Stage], Rows], float], ...] = (
    (product, 5.0),
    (start, 30.0),
    (steps, 20.0),
    (kernels, 25.0),
    (traces, 30.0),
    (waits, 5.0),
    (bare, 25.0),
    (accumulation, 40.0),
)


def _on(stage: Stage, measure: Callable[[Stage], Rows], _: Trial) -> Rows:
    return measure(stage)


def main() -> int:
    import faulthandler

    from actors.rendezvous import join, open_store

    options = arguments(__doc__ or "")
    faulthandler.dump_traceback_later(options.seconds + 30, exit=True)
    trial = Trial("stage2_deepspeed", options)
    store = open_store("127.0.0.1")
    join("127.0.0.1", store.port, rank=0, world_size=1)
    with tempfile.TemporaryDirectory(prefix="rezero-trial-", dir=fast_folder(trial.device)) as folder:
        stage = Stage(trial, Path(folder))
        for measure, needed in STAGES:
            trial.section(measure.__name__, partial(_on, stage, measure), 0.0 if trial.small else needed)
    print(f"\n{len(trial.failed)} sections failed: {', '.join(trial.failed) or 'none'}", flush=True)
    return 1 if trial.failed else 0


if __name__ == "__main__":
    sys.exit(main())
