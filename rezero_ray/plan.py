"""What a run is going to be: bundles, rollouts, tokens, adapter, memory, seconds. Pure arithmetic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rezero_ray.config import Config
from rezero_ray.cost import NO_RATE, NoRate, Rate, cost_lines, dollars
from rezero_ray.forecast.beforehand import Forecast, forecast
from rezero_ray.forecast.comparison import Expectation
from rezero_ray.forecast.model_work import model_work
from rezero_ray.forecast.place import Place
from rezero_ray.preflight import Device, Machine, ModelFacts
from rezero_ray.preflight.expected import Expected
from rezero_ray.preflight.memory import (
    GIB,
    Need,
    Term,
    adapter_bytes,
    adapter_parameters,
    cpu_rest_need,
    engine_need,
    kv_bytes_per_token,
    learner_need,
)


@dataclass(frozen=True)
class Bundle:
    """A place for one process: a GPU or its part of it, on the CPU a part of the cores.

    `has_gib` is what the process may take; None where the memory of the GPU is not known.
    """

    role: str  # "inference" or "train"
    index: int  # the GPU id of the config; on the CPU just a number
    share: float  # of one GPU
    need: Need | None
    has_gib: float | None


@dataclass(frozen=True)
class Plan:
    device: Device
    bundles: tuple[Bundle, ...]
    steps: int
    rollouts_per_step: int
    max_completion_tokens_per_step: int
    max_tokens_per_step: int
    checkpoints: int
    adapter_parameters: int | None
    adapter_bytes: int | None
    kv_tokens: int | None  # that one engine's cache holds


def make_plan(config: Config, facts: ModelFacts | None, machine: Machine, device: Device) -> Plan:
    """`facts` may be None or without tensors: what cannot be known is None then."""
    if facts is not None and not facts.tensors:
        facts = None
    rollouts = config.orchestrator.batch_size * config.orchestrator.rollouts_per_example
    bundles = tuple(_bundles(config, facts, machine, device))
    parameters = None if facts is None else adapter_parameters(config, facts)
    return Plan(
        device=device,
        bundles=bundles,
        steps=config.max_steps,
        rollouts_per_step=rollouts,
        max_completion_tokens_per_step=rollouts * config.orchestrator.sampling.max_tokens,
        max_tokens_per_step=rollouts * config.seq_len,
        checkpoints=-(-config.max_steps // config.ckpt.interval),
        adapter_parameters=parameters,
        adapter_bytes=None if facts is None else adapter_bytes(config, facts),
        kv_tokens=None if facts is None else _kv_tokens(config, facts, bundles[0], device),
    )


def expectation(
    config: Config,
    facts: ModelFacts | None,
    machine: Machine,
    device: Device,
    place: Place,
    expected: Expected | None,
) -> Expectation | None:
    """What a run on `place` compares itself with; None where the model's shapes are not known."""
    work = model_work(config, facts) if facts is not None else None
    plan = make_plan(config, facts, machine, device)
    engine, learner = plan.bundles[0].need, plan.bundles[-1].need
    if facts is None or work is None or engine is None or learner is None:
        return None
    if device == "cuda" and plan.bundles[0].has_gib is not None:  # vLLM takes all of its part
        taken = plan.bundles[0].has_gib * GIB
        engine = Need((*engine.terms, Term("KV cache", max(0.0, taken - engine.bytes))))
    return Expectation(
        config=config,
        facts=facts,
        device=device,
        work=work,
        plan=forecast(config, work, place, expected, kv_tokens=plan.kv_tokens),
        engine=engine,
        learner=learner,
        kv_tokens=plan.kv_tokens,
    )


def _bundles(config: Config, facts: ModelFacts | None, machine: Machine, device: Device) -> Iterator[Bundle]:
    shared = set(config.inference_gpu_ids) & set(config.trainer_gpu_ids)
    utilization = config.inference.gpu_memory_utilization
    for role, ids in (("inference", config.inference_gpu_ids), ("train", config.trainer_gpu_ids)):
        for index in ids:
            need = None
            if facts is not None:
                need = (engine_need if role == "inference" else learner_need)(config, facts, device)
            share = 1.0
            if role == "inference" and device == "cuda":
                share = utilization
            elif index in shared:
                share = 1 - utilization
            whole = _gpu_gib(machine, index)
            has = machine.memory_gib if device == "cpu" else None if whole is None else whole * share
            yield Bundle(role, index, share, need, has)


def _gpu_gib(machine: Machine, index: int) -> float | None:
    return machine.gpu_gib[index] if index < len(machine.gpu_gib) else None


def _kv_tokens(config: Config, facts: ModelFacts, engine: Bundle, device: Device) -> int | None:
    per_token = kv_bytes_per_token(config, facts)
    if per_token is None or engine.need is None:
        return None
    if device == "cpu":
        return int(config.inference.cpu_kv_cache_gib * GIB / per_token)
    if engine.has_gib is None:
        return None
    return max(0, int((engine.has_gib * GIB - engine.need.bytes) * config.inference.parallel.tp / per_token))


def render_plan(
    plan: Plan,
    config: Config,
    notes: Sequence[str] = (),
    seconds: Forecast | None = None,
    rate: Rate | NoRate = NO_RATE,
) -> str:
    """The plan in lines to read; each also stands by itself for grep."""
    return "\n".join(_lines(plan, config, notes, seconds, rate))


def _lines(
    plan: Plan, config: Config, notes: Sequence[str], seconds: Forecast | None, rate: Rate | NoRate
) -> Iterator[str]:
    kind = "GPU" if plan.device == "cuda" else "CPU share"
    inference, training = len(config.inference_gpu_ids), len(config.trainer_gpu_ids)
    yield f"bundles: {inference} inference + {training} training ({kind} each, one placement group)"
    for bundle in plan.bundles:
        yield f"  {_bundle_line(bundle, plan.device)}"
    if plan.device == "cpu" and all(bundle.need for bundle in plan.bundles):
        rest = cpu_rest_need(config).bytes / GIB
        needed = rest + sum(bundle.need.bytes for bundle in plan.bundles if bundle.need) / GIB
        has = plan.bundles[0].has_gib or 0
        yield f"  together: needs {needed:.1f} GiB of {has:.1f} GiB ({rest:.1f} for workers, controller, Ray)"
    orchestrator = config.orchestrator
    yield (
        f"rollouts a step: {plan.rollouts_per_step} "
        f"({orchestrator.batch_size} prompts x {orchestrator.rollouts_per_example})"
    )
    yield (
        f"tokens a step: at most {plan.max_tokens_per_step:,} trained on (seq_len {config.seq_len}), "
        f"{plan.max_completion_tokens_per_step:,} written in single-turn rollouts"
    )
    if plan.adapter_parameters is None or plan.adapter_bytes is None:
        yield "adapter: unknown, the model is not on this machine"
    else:
        lora = config.trainer.model.lora
        yield (
            f"adapter: {plan.adapter_parameters:,} parameters, {plan.adapter_bytes / 1e6:.1f} MB a version "
            f"(rank {lora.rank} on {', '.join(lora.target_modules)}, bf16)"
        )
    if plan.kv_tokens is not None:
        yield f"KV cache of an engine: about {plan.kv_tokens:,} tokens"
    yield f"steps: {plan.steps}, checkpoints: {plan.checkpoints} (the last {config.ckpt.keep_last} are kept)"
    if seconds is not None:
        yield from forecast_lines(seconds)
    yield from cost_lines(rate, seconds.step.seconds_per_step if seconds else None, plan.steps, None)
    if config.budget.max_usd or config.budget.max_hours:
        yield f"budget: {_budget(config)}; the run stops with a checkpoint before it would pass that"
    yield f"output: {config.output_dir}"
    for note in notes:
        yield f"note: {note}"


def _budget(config: Config) -> str:
    usd, hours = config.budget.max_usd, config.budget.max_hours
    limits = [*([dollars(usd)] if usd else []), *([f"{hours:g} hours"] if hours else [])]
    return "at most " + " and ".join(limits)


def forecast_lines(found: Forecast) -> Iterator[str]:
    """Seconds by part, what they rest on, and the time of the run."""
    step = found.step
    how = ", rollouts beside training" if step.overlap else ""
    parts = ", ".join(f"{part.name} {part.seconds:.1f}" for part in step.parts)
    yield f"time a step: {step.seconds_per_step:.1f} s ({parts}{how})"
    for part in (step.rollouts, step.training):
        terms = ", ".join(f"{term.what} {term.seconds:.1f}" for term in part.terms if term.seconds >= 0.05)
        yield f"  {part.name}: {terms or 'less than 0.1'}"
    yield f"  assumed: {found.assumption}"
    yield f"  speeds: {found.place.name}, {found.place.origin} (docs/forecast.md)"
    yield f"time of the run: {_duration(found.seconds)} for {found.steps} steps, without start and evaluation"


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _bundle_line(bundle: Bundle, device: Device) -> str:
    where = f"GPU {bundle.index}" if device == "cuda" else f"bundle {bundle.index}"
    name = f"{bundle.role} on {where}"
    if device == "cuda" and bundle.share < 1:
        name += f" ({bundle.share:.0%} of its memory)"
    if bundle.need is None:
        return f"{name}: memory unknown, the model is not on this machine"
    terms = ", ".join(f"{term.what} {term.bytes / GIB:.1f}" for term in bundle.need.terms if term.bytes)
    needs = f"{name}: needs {bundle.need.bytes / GIB:.1f} GiB ({terms})"
    if device == "cpu":
        return needs
    if bundle.has_gib is None:
        return f"{needs}; no such GPU is seen here to compare with"
    verdict = "fits" if bundle.need.bytes <= bundle.has_gib * GIB else "TOO SMALL by this estimate"
    return f"{needs}, has {bundle.has_gib:.1f} GiB: {verdict}"
