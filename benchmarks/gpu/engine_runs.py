"""What the product's rollout engine does by itself, without Ray: each figure on an engine of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from actors import rollout_engine
from benchmarks.gpu.trial import Rows
from rezero_ray.config.schema import Config
from rezero_ray.learning.policy import DTYPES, encode_adapter
from rezero_ray.preflight.model_facts import find_model
from rezero_ray.records import Adapter

PROBE_TOKENS, VERSIONS = 256, 5


@asynccontextmanager
async def engine_of(config: Config, device: str, **changes: Any) -> AsyncIterator[Any]:
    """A started `RolloutEngine`; `changes` win over the product's arguments of vLLM."""
    product = rollout_engine.engine_arguments

    def changed(config: Config, device: str, replica: int) -> dict[str, Any]:
        return {**product(config, device, replica), **changes}

    kind = rollout_engine.RolloutEngine.__ray_metadata__.modified_class
    engine = kind(config, 0, device)
    with patch.object(rollout_engine, "engine_arguments", changed):
        await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def make_adapter(config: Config, *, seed: int, size: float = 0.02) -> Adapter:
    """Normal noise on both matrices of every target module; `size` is the standard deviation of B."""
    facts, lora = find_model(config.model.name), config.trainer.model.lora
    if facts is None:
        raise ValueError(f"{config.model.name} is no model")
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in facts.tensors.items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] not in lora.target_modules:
            continue
        for letter, of_shape, spread in (
            ("A", (lora.rank, shape[1]), shape[1] ** -0.5),
            ("B", (shape[0], lora.rank), size),
        ):
            tensor = spread * torch.randn(*of_shape, generator=draw)
            tensors[f"base_model.model.{module}.lora_{letter}.weight"] = tensor.to(DTYPES[config.model.dtype])
    return encode_adapter(tensors, config)


def random_ids(count: int, *, seed: int = 0) -> list[int]:
    """Token ids past the special ones of SmolLM2's vocabulary."""
    ids: list[int] = np.random.default_rng(seed).integers(100, 49_000, count).tolist()
    return ids


def publishing(config: Config, device: str) -> Rows:
    """Seconds to start an engine, and to publish each version; whether each version acts, and acts at once."""

    async def work() -> Rows:
        started = time.perf_counter()
        async with engine_of(config, device) as engine:
            rows: Rows = [{"what": "start", "seconds": time.perf_counter() - started}]
            probe, before = random_ids(PROBE_TOKENS), None
            for version in range(VERSIONS):
                adapter = make_adapter(config, seed=version)
                started = time.perf_counter()
                await engine.publish(version, adapter)
                published = time.perf_counter() - started
                found = np.array(await engine.logprobs(version, probe))
                scored = time.perf_counter() - started - published
                row = {"what": f"version {version}", "seconds": published, "probe seconds": scored}
                if before is not None:
                    row["logprobs moved"] = float(np.abs(found - before).mean())
                rows.append(row)
                before = found
                if version:
                    await engine.retire(version - 1)
            return rows

    return asyncio.run(work())


def quantized(config: Config, device: str) -> Rows:
    """Logprobs of one probe under one adapter, with bfloat16 weights and with FP8: each path against the first."""

    async def logprobs(**changes: Any) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        async with engine_of(config, device, **changes) as engine:
            seconds = time.perf_counter() - started
            await engine.publish(0, make_adapter(config, seed=0))
            return np.array(await engine.logprobs(0, random_ids(PROBE_TOKENS))), seconds

    kinds: dict[str, dict[str, Any]] = {
        "bfloat16": {},
        "float32 head": {"hf_overrides": {"head_dtype": "float32"}},
        "fp8": {"quantization": "fp8"},
        "fp8, fp8 cache": {"quantization": "fp8", "kv_cache_dtype": "fp8"},
    }
    rows: Rows = []
    expected: np.ndarray | None = None
    for name, changes in kinds.items():
        row: dict[str, Any] = {"weights": name}
        rows.append(row)
        try:
            found, row["start seconds"] = asyncio.run(logprobs(**changes))
        except Exception as error:  # the others are still to be seen
            row["error"] = f"{type(error).__name__}: {error}"[:1500]
            continue
        row["mean logprob"] = float(found.mean())
        if expected is None:
            expected = found
            continue
        difference = found - expected
        row |= {
            "mean difference": float(np.abs(difference).mean()),
            "largest": float(np.abs(difference).max()),
        }
        row["k3"] = float((np.expm1(difference) - difference).mean())
    return rows


def routes(config: Config, device: str) -> Rows:
    """Shapes of the routes that vLLM returns under an adapter: of a new prompt, and of one in the prefix cache."""

    async def work() -> Rows:
        from vllm import SamplingParams

        rows: Rows = []
        async with engine_of(config, device, enable_return_routed_experts=True) as engine:
            await engine.publish(0, make_adapter(config, seed=0))
            prompt = random_ids(200, seed=1)
            first: np.ndarray | None = None
            for what in ("new prompt", "prompt in the cache"):
                params = SamplingParams(max_tokens=32, temperature=0.0, logprobs=0, detokenize=False)
                result = await engine._run("policy-v0", prompt, params)
                completion = result.outputs[0]
                found = completion.routed_experts
                row: dict[str, Any] = {
                    "request": what,
                    "prompt": len(prompt),
                    "completion": len(completion.token_ids),
                    "cached": getattr(result, "num_cached_tokens", None),
                    "shape": "none" if found is None else list(np.shape(found)),
                }
                if found is not None:
                    row["dtype"] = str(np.asarray(found).dtype)
                    row["expert ids"] = f"{int(np.min(found))}..{int(np.max(found))}"
                    if first is not None and np.shape(first) == np.shape(found):
                        row["as before"] = float(np.mean(np.sort(first, -1) == np.sort(found, -1)))
                    first = np.asarray(found)
                rows.append(row)
        return rows

    return asyncio.run(work())


def throughput(config: Config, device: str, *, prompts: int, tokens: int) -> Rows:
    """Tokens a second of groups of four rollouts: by the product's call, and by vLLM alone on the same engine.

    The bare call has no adapter, no logprobs and no seed. Both write exactly `tokens` a rollout.
    """

    async def work() -> Rows:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        arguments = {"max_num_seqs": max(4 * prompts, 4)}
        async with engine_of(config, device, **arguments) as engine:
            await engine.publish(0, make_adapter(config, seed=0, size=1e-3))

            def sampling(seed: int | None, logprobs: int | None) -> Any:
                return SamplingParams(
                    max_tokens=tokens,
                    temperature=1.0,
                    seed=seed,
                    logprobs=logprobs,
                    ignore_eos=True,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )

            async def ours(prompt: list[int], seed: int) -> int:
                output = await engine._run("policy-v0", prompt, sampling(seed, 0))
                return len(output.outputs[0].token_ids)

            async def adapter_alone(prompt: list[int], _: int) -> int:
                output = await engine._run("policy-v0", prompt, sampling(None, None))
                return len(output.outputs[0].token_ids)

            async def bare(prompt: list[int], _: int) -> int:
                output = await engine._run("base", prompt, sampling(None, None))
                return len(output.outputs[0].token_ids)

            async def all_of(call: Any, load: Sequence[list[int]]) -> tuple[int, float]:
                started = time.perf_counter()
                counts = await asyncio.gather(
                    *(
                        call(prompt, 4 * number + copy)
                        for number, prompt in enumerate(load)
                        for copy in range(4)
                    )
                )
                return sum(counts), time.perf_counter() - started

            rows: Rows = []
            for name, call in (
                ("adapter, seeds, logprobs", ours),
                ("adapter", adapter_alone),
                ("bare", bare),
            ):
                await all_of(call, [random_ids(300, seed=1)])  # warm: graphs and kernels are made
                load = [random_ids(300, seed=10 + number) for number in range(prompts)]
                await engine._engine.reset_prefix_cache()
                written, seconds = await all_of(call, load)
                rows.append(
                    {"call": name, "rollouts": 4 * prompts, "tokens": written, "tokens/s": written / seconds}
                )
            return rows

    return asyncio.run(work())
