"""The policy: a frozen base model with a LoRA adapter, and the logprobs of a packed micro-batch."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from rezero_ray.config.schema import Config
from rezero_ray.learning import attention, segment_tree
from rezero_ray.learning.head import TokenLogprobHead
from rezero_ray.learning.recurrence import separate_segments
from rezero_ray.records import Adapter, MicroBatch

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class PolicyModel(nn.Module):
    """Base model, adapter and logprob head in one module, so that one engine shards and hooks all of it."""

    def __init__(self, peft_model: Any, *, temperature: float, logits_chunk: int) -> None:
        super().__init__()
        self.peft_model = peft_model
        base = peft_model.get_base_model()
        output = base.get_output_embeddings()
        if getattr(output, "bias", None) is not None:
            raise ValueError("a model whose output embedding has a bias is not supported")
        self.head = TokenLogprobHead(output.weight, temperature=temperature, chunk=logits_chunk)

    def forward(
        self,
        token_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segments: list[segment_tree.Segment],
        sources: torch.Tensor,
        targets: torch.Tensor,
        temperature: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """token_ids, position_ids [T]; sources, targets [N] -> logprobs [N], entropies [N] (float32).

        At the sampling temperature when `temperature` is None (`rezero_ray.logprob_scale`).
        """
        decoder = self.peft_model.get_base_model().model
        block_mask = segment_tree.block_mask(segments, token_ids.device) if token_ids.is_cuda else None
        hidden = decoder(
            input_ids=token_ids[None],
            position_ids=position_ids[None],
            attention_mask=None,
            use_cache=False,
            segments=segments,
            block_mask=block_mask,
        ).last_hidden_state[0]
        logprobs, entropies = self.head(hidden[sources], targets, temperature)
        return logprobs, entropies

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """PEFT's file names and the parameters of the adapter, in one order on every rank."""
        for name, parameter in self.peft_model.named_parameters():
            if ".lora_" in name:
                yield name.replace(".default.", "."), parameter


def build_policy(config: Config) -> PolicyModel:
    """Load the base model (partitioned at once where ZeRO-3 is configured) and put a zero adapter on it.

    The adapter's A matrices are drawn from the run's seed, the same on every rank; B is zero.
    """
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(
        config.model.name,
        dtype=DTYPES[config.model.dtype],
        attn_implementation=attention.register(),
        trust_remote_code=config.trainer.model.trust_remote_code,
    )
    return adapt(base, config)


def adapt(base: Any, config: Config) -> PolicyModel:
    """Put a zero adapter on a base model whose attention is `attention.NAME`."""
    from peft import LoraConfig, get_peft_model

    base.config.use_cache = False
    separate_segments(base)
    lora = config.trainer.model.lora
    torch.manual_seed(config.seed)
    model = get_peft_model(
        base,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules=list(lora.target_modules),
            task_type="CAUSAL_LM",
        ),
        autocast_adapter_dtype=False,
    )
    if config.trainer.model.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    model.train()
    return PolicyModel(
        model,
        temperature=config.orchestrator.sampling.temperature,
        logits_chunk=config.trainer.model.logits_chunk,
    )


def micro_batch_tensors(batch: MicroBatch, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of `PolicyModel.forward`."""
    tensors = {
        name: torch.as_tensor(getattr(batch, name), device=device)
        for name in ("token_ids", "position_ids", "sources", "targets")
    }
    return {**tensors, "segments": batch.segments}


def encode_adapter(tensors: dict[str, torch.Tensor], config: Config) -> Adapter:
    """The adapter as PEFT and vLLM read it. `tensors` has PEFT's names and whole (not partitioned) matrices."""
    import safetensors.torch

    lora = config.trainer.model.lora
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.model.name,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(lora.target_modules),
        "inference_mode": True,
    }
    weights = safetensors.torch.save(
        {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()},
        metadata={"format": "pt"},
    )
    return Adapter(
        weights=np.frombuffer(weights, dtype=np.uint8),
        config=json.dumps(description, indent=2, sort_keys=True).encode(),
        digest=hashlib.sha256(weights).hexdigest(),
    )
