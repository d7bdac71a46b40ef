"""DeepSpeed ZeRO-3 around the policy: gradients, the optimizer, the adapter in and out.

The normaliser of the loss is a count over the whole step, so gradients are *sums* over micro-batches and ranks.
DeepSpeed averages over ranks; the loss is multiplied by their number to undo it.
"""

import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from actors.peak_memory import peak_reserved_bytes, peak_resident_bytes
from rezero_ray.config.schema import Config
from rezero_ray.learning.policy import build_policy, encode_adapter, micro_batch_tensors
from rezero_ray.learning.schedule import learning_rate
from rezero_ray.logprob_scale import PROBE_TEMPERATURE
from rezero_ray.losses import add_metrics, build_loss
from rezero_ray.losses.options import DrGRPOOptions, LossOptions
from rezero_ray.records import Adapter, Bytes, MicroBatch, StepReport

MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedLearner:
    """One rank's model and optimizer. Every method is collective."""

    def __init__(self, config: Config, device: str, world_size: int) -> None:
        self._config, self._world_size = config, world_size
        self._device = torch.device("cuda", 0) if device == "cuda" else torch.device("cpu")
        self._loss = build_loss(loss_options(config))
        if device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
            _skip_shm_build()
        import deepspeed
        from transformers.integrations import HfDeepSpeedConfig

        deepspeed.init_distributed(dist_backend="nccl" if device == "cuda" else "gloo", verbose=False)
        settings = zero_settings(config)
        self._keep_alive = HfDeepSpeedConfig(settings)
        policy = build_policy(config)
        self._parameters: list[Any] = [parameter for _, parameter in policy.adapter_parameters()]
        self._names = [name for name, _ in policy.adapter_parameters()]
        optim = config.trainer.optim
        optimizer = torch.optim.AdamW(
            self._parameters, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay
        )
        self._engine, *_ = deepspeed.initialize(model=policy, optimizer=optimizer, config=settings)
        self._policy = policy
        self._set_adam_steps(0)  # should DeepSpeed have made its state by a step on zero gradients

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of the adapter and of the whole model."""
        return {
            "adapter": sum(p.ds_numel for p in self._parameters),
            "model": sum(getattr(p, "ds_numel", 0) for p in self._policy.parameters()),
        }

    def step(self, micro_batches: Sequence[MicroBatch], normalizers: dict[str, int], step: int) -> StepReport:
        """Forward and backward over this rank's micro-batches, then one optimizer step of the group."""
        started = time.monotonic()
        config = self._config
        rate = learning_rate(config.trainer.optim, step, config.max_steps)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        normalizer = float(normalizers[self._loss.normalizer_unit])
        # All passes without the adapter come before the first with it: ZeRO-3 prefetches by the modules of the pass
        # before, and with passes that alternate its trace would be invalid at every one.
        references = [self._reference_logprobs(batch) for batch in micro_batches]
        # Sums stay on the device until the step is taken: reading one waits for all that was launched.
        total_loss = torch.zeros((), dtype=torch.float64, device=self._device)
        entropy = torch.zeros(2, dtype=torch.float64, device=self._device)
        metrics: dict[str, Any] = {}
        for number, (batch, reference) in enumerate(zip(micro_batches, references, strict=True), start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(micro_batches))
            logprobs, entropies = self._engine(**micro_batch_tensors(batch, self._device))
            on_device = {
                name: torch.as_tensor(getattr(batch, name), device=self._device)
                for name in ("inference_logprobs", "advantages", "loss_mask", "sequence_ids")
            }
            output = self._loss(
                logprobs,
                *on_device.values(),
                normalizer=normalizer,
                old_logprobs_T=self._old_logprobs(logprobs),
                reference_logprobs_T=reference,
            )
            self._engine.backward(output.loss * self._world_size)
            total_loss += output.loss.detach()
            mask = on_device["loss_mask"].double()
            entropy += torch.stack(((entropies.double() * mask).sum(), mask.sum()))
            metrics = add_metrics(metrics, output.metrics) if metrics else dict(output.metrics)
        self._engine.step()
        means = self._reduce(metrics, entropy, total_loss)
        return StepReport(
            step=step,
            loss=means.pop("loss"),
            grad_norm=float(self._engine.get_global_grad_norm() or 0.0),
            lr=rate,
            metrics=means,
            micro_batches=len(micro_batches),
            computed_tokens=sum(len(batch.token_ids) for batch in micro_batches),
            seconds=time.monotonic() - started,
            peak_bytes=peak_reserved_bytes() if self._device.type == "cuda" else peak_resident_bytes(),
        )

    def use_loss(self, config: Config) -> None:
        """Train on the loss of `config` from the next step on; in all else it is the configuration as it was."""
        self._config = config
        self._loss = build_loss(loss_options(config))

    def _reduce(self, metrics: dict[str, Any], entropy: torch.Tensor, loss: torch.Tensor) -> dict[str, float]:
        names = sorted(metrics)
        rows = [torch.stack((metrics[n].total.double(), metrics[n].count.double())) for n in names]
        table = torch.stack([*rows, entropy, torch.stack((loss, torch.zeros_like(loss)))])
        torch.distributed.all_reduce(table)
        means = {
            name: (total / count if count else 0.0)
            for name, (total, count) in zip([*names, "entropy"], table[:-1].tolist(), strict=True)
        }
        means["loss"] = table[-1, 0].item()
        return means

    def _old_logprobs(self, logprobs: torch.Tensor) -> torch.Tensor | None:
        """The trainer's own logprobs before the step, where `tis_cap` asks for them.

        A batch is trained on once, so they are those of the forward pass under way.
        """
        return None if self._config.trainer.loss.tis_cap is None else logprobs.detach()

    def _reference_logprobs(self, batch: MicroBatch) -> torch.Tensor | None:
        """Logprobs of the base policy (adapter off), where the loss asks for them."""
        if self._config.trainer.loss.kl_coef == 0:
            return None
        with torch.no_grad(), self._policy.peft_model.disable_adapter():
            logprobs, _ = self._engine(**micro_batch_tensors(batch, self._device))
        return logprobs

    def logprobs(self, batch: MicroBatch, *, use_adapter: bool = True) -> list[float]:
        """Logprobs of the micro-batch's targets under the current adapter, or under the base policy.

        They are on the probe's scale, as the engine's of a text that it scores (`rezero_ray.logprob_scale`).
        """
        from contextlib import nullcontext

        off = nullcontext() if use_adapter else self._policy.peft_model.disable_adapter()
        self._engine.eval()
        with torch.no_grad(), off:
            tensors = micro_batch_tensors(batch, self._device)
            logprobs, _ = self._engine(**tensors, temperature=PROBE_TEMPERATURE)
        self._engine.train()
        return [float(value) for value in logprobs.tolist()]

    def adapter(self) -> Adapter | None:
        """Gather the LoRA parameters and nothing else; encoded on rank 0."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(self._parameters, modifier_rank=None):
            if torch.distributed.get_rank() != 0:
                return None
            tensors = {n: p.data for n, p in zip(self._names, self._parameters, strict=True)}
            return encode_adapter(tensors, self._config)

    @contextmanager
    def perturbed(self, module: str, seed: int, scale: float) -> Iterator[None]:
        """Noise on the B matrices of `module`, zeros on those of all others, while the context lasts."""
        chosen = [
            (name, parameter)
            for name, parameter in zip(self._names, self._parameters, strict=True)
            if ".lora_B." in name
        ]
        if not any(f".{module}." in name for name, _ in chosen):
            raise ValueError(f"no adapter on a module named {module!r}")
        before = self._overwrite(chosen, lambda name, p: _noise(name, p, module, seed, scale))
        try:
            yield
        finally:
            restore = dict(zip([name for name, _ in chosen], before, strict=True))
            self._overwrite(chosen, lambda name, _: restore[name])

    def _overwrite(self, chosen: Sequence[tuple[str, Any]], value: Any) -> list[torch.Tensor]:
        """Put `value(name, parameter)` into the parameters on every rank; returns what was there."""
        import deepspeed

        before = []
        with deepspeed.zero.GatheredParameters([p for _, p in chosen], modifier_rank=0):
            for name, parameter in chosen:
                before.append(parameter.data.clone())
                parameter.data.copy_(value(name, parameter))
        return before

    def state(self) -> Bytes | None:
        """fp32 adapter, AdamW's moments and step count, whole and independent of the number of ranks."""
        import safetensors.torch
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._make_moments()
        tensors = {}
        for name, parameter in zip(self._names, self._parameters, strict=True):
            tensors[f"param/{name}"] = safe_get_full_fp32_param(parameter)
            for moment in MOMENTS:
                tensors[f"{moment}/{name}"] = safe_get_full_optimizer_state(parameter, moment)
        if torch.distributed.get_rank() != 0:
            return None
        tensors["step"] = torch.tensor(self._adam_steps(), dtype=torch.int64)
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        return np.frombuffer(safetensors.torch.save(whole), dtype=np.uint8)

    def load_state(self, state: Bytes) -> None:
        """Take over what `state` returned, from any number of ranks.

        Each rank writes its own part: DeepSpeed's setters of whole values (0.19.8) fail on the last rank where
        the size of a parameter is no multiple of the number of ranks.
        """
        import safetensors.torch
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        tensors = safetensors.torch.load(state.tobytes())
        expected = {f"param/{name}" for name in self._names}
        found = {name for name in tensors if name.startswith("param/")}
        if expected != found:
            raise ValueError(f"the checkpoint's adapter has other modules: {sorted(expected ^ found)[:4]}")
        self._make_moments()
        for name, parameter in zip(self._names, self._parameters, strict=True):
            safe_set_local_fp32_param(parameter, self._own_part(parameter, tensors[f"param/{name}"]))
            for moment in MOMENTS:
                own = self._own_part(parameter, tensors[f"{moment}/{name}"])
                safe_set_local_optimizer_state(parameter, own, moment)
        self._overwrite(
            list(zip(self._names, self._parameters, strict=True)),
            lambda name, parameter: tensors[f"param/{name}"].to(parameter.dtype),
        )
        self._set_adam_steps(int(tensors["step"]))

    def _own_part(self, parameter: Any, value: torch.Tensor) -> torch.Tensor:
        """This rank's slice of a whole value, padded as DeepSpeed partitions it."""
        size = parameter.ds_tensor.ds_numel
        flat = value.to(self._device).flatten()
        padded = torch.nn.functional.pad(flat, (0, size * self._world_size - flat.numel()))
        return padded.narrow(0, size * torch.distributed.get_rank(), size)

    def _make_moments(self) -> None:
        """AdamW makes its moments at the first step; a state to be loaded or handed out needs them before."""
        optimizer = self._engine.optimizer
        for flat in optimizer.fp32_partitioned_groups_flat:
            state = optimizer.optimizer.state[flat]
            if "exp_avg" not in state:
                state["step"] = torch.tensor(0.0)
                state |= {moment: torch.zeros_like(flat) for moment in MOMENTS}

    def _adam_steps(self) -> int:
        states = self._engine.optimizer.optimizer.state.values()
        return int(next(iter(states))["step"])

    def _set_adam_steps(self, count: int) -> None:
        for state in self._engine.optimizer.optimizer.state.values():
            state["step"] = torch.tensor(float(count))


def loss_options(config: Config) -> LossOptions:
    """The configured loss; Dr. GRPO's constant length is the longest completion when it is not set."""
    loss = config.trainer.loss
    if isinstance(loss, DrGRPOOptions) and loss.constant_length is None:
        return loss.model_copy(update={"constant_length": config.orchestrator.sampling.max_tokens})
    return loss


def zero_settings(config: Config) -> dict[str, Any]:
    """DeepSpeed's configuration: ZeRO-3, gradients accumulated by hand, precision of the model."""
    zero = config.trainer.zero
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.trainer.optim.max_grad_norm,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": config.device != "cpu",
            "stage3_param_persistence_threshold": zero.param_persistence_threshold,
            "stage3_prefetch_bucket_size": zero.prefetch_bucket_size,
            "stage3_max_live_parameters": zero.max_live_parameters,
            "stage3_max_reuse_distance": zero.max_live_parameters,
        },
        # Micro-batches have advantages of both signs: summed in bfloat16, what is below 1/256 of the sum is lost.
        "data_types": {"keep_in_fp32_modules": "auto", "grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "steps_per_print": 10**9,
    }
    if config.model.dtype == "bfloat16":
        settings["bf16"] = {"enabled": True}
    return settings


def _noise(name: str, parameter: torch.Tensor, module: str, seed: int, scale: float) -> torch.Tensor:
    """Seeded normal noise for `module`, zeros for the rest; the same on every rank."""
    if f".{module}." not in name:
        return torch.zeros_like(parameter)
    import zlib

    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    return (scale * torch.randn(parameter.shape, generator=generator)).to(parameter)


def _skip_shm_build() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives; gloo does the work on the CPU.

    deepspeed/comm/torch.py builds them with g++ at import on Linux, half a minute for each fresh machine.
    """
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
