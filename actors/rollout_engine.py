"""The rollout engine: one vLLM `AsyncLLM` an actor, token ids in and out, the adapter published by version.

A rollout names the policy version it began with and finishes on it. Version `v` is the LoRA adapter `policy-v{v}`
with id `v + 1`; no request runs without one, but those that ask for `BASE_POLICY`.
"""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import ray

from actors.engine_faults import explained
from actors.peak_memory import peak_resident_bytes, used_gpu_bytes
from actors.tool_calls import ReadCompletion, ToolCallReader
from rezero_ray.config.schema import Config
from rezero_ray.logprob_scale import PROBE_TEMPERATURE
from rezero_ray.records import BASE_POLICY, Adapter
from rezero_ray.vllm_cpu import plugin
from rezero_ray.vllm_cpu.processor import attention_arguments

GIB = 1024**3

CANARY_ID = 1_000_000_000
"""LoRA ids of the start-up canary count from here, out of the way of every policy version."""


class Completion(msgspec.Struct, frozen=True):
    """What the model wrote: ids, their logprobs under the sampling distribution, and why it ended."""

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


@ray.remote(max_restarts=-1)
class RolloutEngine:
    """One replica. `generate` runs many at a time; vLLM batches them.

    Ray starts its process again when it dies; it then knows no policy until `start` and `publish` are called.
    """

    def __init__(self, config: Config, replica: int, device: str) -> None:
        self._config, self._replica, self._device = config, replica, device
        self._adapters = Path(tempfile.mkdtemp(prefix="rezero-adapters-", dir=_memory_directory()))
        self._requests: dict[str, Any] = {}
        self._in_flight: Counter[str] = Counter()
        self._serial = 0
        self._gpu_bytes: int | None = None

    async def start(self, instead_of: int | None = None) -> int:
        """Load the model, once. Returns the process id.

        A process whose id is `instead_of` ends itself, so that the call is answered by the one that takes its place:
        `ray.kill` returns before anything has died.
        """
        if os.getpid() == instead_of:
            os._exit(1)
        for name, value in engine_environment(self._device).items():
            os.environ.setdefault(name, value)
        if self._device == "cpu":
            plugin.make_discoverable()
            plugin.require_platform()
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = engine_arguments(self._config, self._device, self._replica)
        if not hasattr(self, "_engine"):
            with explained():
                self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
            parser = self._config.inference.model.tool_call_parser
            if parser is not None:
                self._tool_calls = ToolCallReader(parser, self._engine.get_tokenizer())
        return os.getpid()

    async def publish(self, version: int, adapter: Adapter) -> int:
        """Make policy `version` known, beside the versions before it. Returns the bytes of memory that the engine's
        processes have had at most, or on a GPU what is taken of it."""
        await self._add(f"policy-v{version}", version + 1, adapter)
        if self._device == "cpu":
            return peak_resident_bytes()
        if self._gpu_bytes is None:  # vLLM takes all that it will have at its start
            self._gpu_bytes = await asyncio.to_thread(used_gpu_bytes)
        return self._gpu_bytes

    async def retire(self, version: int) -> None:
        """Forget policy `version` as soon as no request uses it."""
        await self._remove(f"policy-v{version}")

    async def reset(self) -> None:
        """Forget every policy version and the prefixes cached under their names."""
        for name in list(self._requests):
            await self._remove(name)
        await self._engine.reset_prefix_cache()

    async def canary(self, number: int, adapter: Adapter, probe: list[int]) -> list[float]:
        """Logprobs of `probe[1:]` under an adapter that is then removed."""
        name = f"canary-{number}"
        await self._add(name, CANARY_ID + number, adapter)
        try:
            return await self._score(name, probe)
        finally:
            await self._remove(name)

    async def logprobs(self, version: int, token_ids: list[int]) -> list[float]:
        """Logprobs of `token_ids[1:]`, each given those before it, under policy `version`, on the probe's scale."""
        return await self._score(f"policy-v{version}", token_ids)

    async def generate(
        self,
        version: int,
        prompt_ids: list[int],
        max_tokens: int,
        seed: int | None,
        temperature: float | None = None,
    ) -> Completion:
        """Sample one completion of at most `max_tokens` tokens under policy `version`, or without an adapter.

        The temperature is the run's. Only `BASE_POLICY`, whose tokens are not trained on, may have another: the
        learner divides by the run's.

        Raises:
            ValueError: another temperature for a policy version.
        """
        if temperature is not None and version != BASE_POLICY:
            raise ValueError("a policy version is sampled at orchestrator.sampling.temperature")
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=max_tokens,
            temperature=self._config.orchestrator.sampling.temperature
            if temperature is None
            else temperature,
            seed=seed,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        name = "base" if version == BASE_POLICY else f"policy-v{version}"
        result = (await self._run(name, prompt_ids, params)).outputs[0]
        logprobs = [
            entry[token].logprob for token, entry in zip(result.token_ids, result.logprobs, strict=True)
        ]
        return Completion(list(result.token_ids), logprobs, result.finish_reason or "stop")

    async def tool_calls(self, token_ids: list[int], tools: Sequence[dict[str, Any]]) -> ReadCompletion:
        """The calls of these tools in a completion without its end token; needs `tool_call_parser`."""
        return self._tool_calls.read(token_ids, tools)

    async def stop(self) -> None:
        """End the engine's processes and remove its adapters from shared memory."""
        if hasattr(self, "_engine"):
            self._engine.shutdown()
        shutil.rmtree(self._adapters, ignore_errors=True)

    async def _add(self, name: str, lora_id: int, adapter: Adapter) -> None:
        from vllm.lora.request import LoRARequest

        folder = self._adapters / name
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(adapter.weights.data)
        (folder / "adapter_config.json").write_bytes(adapter.config)
        request = LoRARequest(lora_name=name, lora_int_id=lora_id, lora_path=str(folder))
        with explained():
            taken = await self._engine.add_lora(request)
        if not taken:
            raise RuntimeError(f"vLLM did not take the adapter {name}")
        self._requests[name] = request

    async def _remove(self, name: str) -> None:
        request = self._requests.pop(name, None)
        if request is None:
            return
        while self._in_flight[name]:
            await asyncio.sleep(0.05)
        await self._engine.remove_lora(request.lora_int_id)
        shutil.rmtree(self._adapters / name, ignore_errors=True)

    async def _score(self, name: str, token_ids: list[int]) -> list[float]:
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=PROBE_TEMPERATURE, prompt_logprobs=0, detokenize=False
        )
        entries = (await self._run(name, token_ids, params)).prompt_logprobs
        return [entry[token].logprob for token, entry in zip(token_ids[1:], entries[1:], strict=True)]

    async def _run(self, name: str, token_ids: list[int], params: Any) -> Any:
        request = self._requests.get(name)
        if request is None and name != "base":
            raise KeyError(f"no adapter {name} in this engine; it has {sorted(self._requests)}")
        self._serial += 1
        self._in_flight[name] += 1
        try:
            stream = self._engine.generate(
                {"prompt_token_ids": list(token_ids)}, params, f"{name}/{self._serial}", lora_request=request
            )
            with explained():
                return [output async for output in stream][-1]
        finally:
            self._in_flight[name] -= 1


def engine_environment(device: str) -> dict[str, str]:
    """Environment variables that vLLM reads at import, where the user has not set them."""
    if device != "cpu":
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def engine_arguments(config: Config, device: str, replica: int) -> dict[str, Any]:
    """`AsyncEngineArgs` for one replica.

    On the CPU chunked prefill is off: vLLM 0.30 rewinds a seeded request's generator after a partial prefill, and
    CPU generators have no offset (`CPU Generator does not use offset`). And vLLM 0.30's rotary kernel for the CPU
    is wrong for MLA's query layout, so those models use its plain one (tests/models/test_tiny_in_vllm.py).
    Blocks are the smallest that the kernels take (`attention_arguments`): a group shares its prompt by whole blocks,
    and vLLM's 128 tokens on the CPU are more than most of a prompt. The KV cache is given in bytes:
    VLLM_CPU_KVCACHE_SPACE takes whole GiB, and overrides the config where the user has set it.
    """
    inference, lora = config.inference, config.trainer.model.lora
    length = inference.model.max_model_len or config.seq_len
    versions = config.orchestrator.max_async_level + 2
    arguments: dict[str, Any] = {
        "model": config.model.name,
        "dtype": config.model.dtype,
        "trust_remote_code": inference.model.trust_remote_code,
        "max_model_len": length,
        "max_num_seqs": inference.model.max_num_seqs,
        "tensor_parallel_size": inference.parallel.tp,
        "enable_prefix_caching": inference.model.enable_prefix_caching,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "seed": config.seed + replica,
        "disable_log_stats": True,
        "enable_lora": True,
        "max_loras": versions,
        "max_cpu_loras": versions + 1,
        "max_lora_rank": max(8, lora.rank) if lora.rank > 1 else 1,
        "lora_target_modules": list(lora.target_modules),
    }
    batched = inference.model.max_num_batched_tokens
    if device == "cpu":
        mla = _is_mla(config)
        arguments |= {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            **attention_arguments(mla=mla),
            "compilation_config": {"custom_ops": ["-rotary_embedding"] if mla else []},
            "max_num_batched_tokens": max(batched or 2048, length),
            "kv_cache_memory_bytes": int(inference.cpu_kv_cache_gib * GIB),
        }
    else:
        arguments |= {
            "enforce_eager": inference.model.enforce_eager,
            "gpu_memory_utilization": inference.gpu_memory_utilization,
        }
        if batched is not None:
            arguments["max_num_batched_tokens"] = batched
    return arguments


def _is_mla(config: Config) -> bool:
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(
        config.model.name, trust_remote_code=config.inference.model.trust_remote_code
    )
    return getattr(model, "kv_lora_rank", None) is not None


def _memory_directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
