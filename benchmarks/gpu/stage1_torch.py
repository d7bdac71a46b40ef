"""Stage 1: attention, head, experts, norms and a GLM-4.7-Flash-shaped slice, on torch, Transformers and PEFT alone.

    python -m benchmarks.gpu.stage1_torch --device cuda --out stage1.json
    python -m benchmarks.gpu.stage1_torch --device cpu --small --out stage1.json

Weights are random: shapes decide the time. Errors are relative, ||found - expected|| / ||expected||, against float32
on the CPU or, where that takes too long, against float32 on the same GPU.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.gpu.attention_candidates import Attention, candidates
from benchmarks.gpu.packs import long_pack, short_pack
from benchmarks.gpu.slice import active_parameters, glm_config, make_policy, run_config
from benchmarks.gpu.trial import Rows, Trial, arguments, milliseconds, profiled, relative_error
from rezero_ray.learning import segment_tree
from rezero_ray.learning.head import TokenLogprobs
from rezero_ray.learning.policy import PolicyModel, micro_batch_tensors
from rezero_ray.records import MicroBatch

GLM_HEADS, GROUPED_HEADS = (20, 20, 256), (32, 4, 128)
"""Query heads, key heads, size: GLM-4.7-Flash after its latents are expanded, and Qwen3-30B-A3B."""


def packs(trial: Trial, vocabulary: int = 1000) -> dict[str, MicroBatch]:
    if trial.small:
        return {
            "short": short_pack(vocabulary, trees=2, prompt=20),
            "long": long_pack(vocabulary, trees=1, prompt=8, turns=160),
        }
    return {"short": short_pack(vocabulary), "long": long_pack(vocabulary)}


def limits(trial: Trial) -> Rows:
    """Bandwidth of a copy and rate of a bfloat16 product: the two ceilings of all that follows."""
    size, edge = (1 << 20, 256) if trial.small else (1 << 31, 8192)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=trial.device)
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source), trial.device)
    a, b = (torch.randn(edge, edge, device=trial.device, dtype=torch.bfloat16) for _ in range(2))
    product = milliseconds(lambda: a @ b, trial.device)
    trial.result["peak_tflops"] = 2 * edge**3 / product / 1e9
    return [
        {"what": "copy, read + write", "GB/s": 2 * size / copy / 1e6},
        {"what": f"bf16 product of {edge}^3", "TFLOP/s": trial.result["peak_tflops"]},
    ]


def attention_values(trial: Trial) -> Rows:
    """Values and gradients of each candidate in bfloat16 against the CPU path in float32, on a small pack."""
    rows: Rows = []
    pack = short_pack(1000, trees=2, prompt=20) if trial.small else short_pack(1000, trees=4, prompt=150)
    length = pack.segments[-1][1]
    for heads, groups, size in [(4, 2, 32)] if trial.small else [GLM_HEADS, GROUPED_HEADS]:
        random = torch.Generator().manual_seed(0)
        exact = [torch.randn(1, n, length, size, generator=random) for n in (heads, groups, groups)]
        weight = torch.randn(1, length, heads, size, generator=random)
        rounded = [tensor.bfloat16() for tensor in exact]

        oracle = candidates(pack.segments, torch.device("cpu"), size**-0.5)["by segment"]
        inputs = [tensor.float().requires_grad_() for tensor in rounded]
        out = oracle(*inputs)
        expected = [out, *torch.autograd.grad((out * weight.bfloat16().float()).sum(), inputs)]

        for name, attend in candidates(pack.segments, trial.device, size**-0.5).items():
            gradients = (
                trial.device.type == "cuda" or name == "by segment"
            )  # FlexAttention: forward only on CPUs
            row: dict[str, Any] = {"heads": f"{heads}/{groups} x {size}", "candidate": name}
            try:
                own = [tensor.to(trial.device).requires_grad_(gradients) for tensor in rounded]
                out = attend(*own)
                row["value"] = relative_error(out, expected[0])
                if gradients:
                    loss = (out.float() * weight.bfloat16().float().to(trial.device)).sum()
                    found = torch.autograd.grad(loss, own)
                    for label, one, other in zip("qkv", found, expected[1:], strict=True):
                        row[f"d{label}"] = relative_error(one, other)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            rows.append(row)
    return rows


def attention_time(trial: Trial) -> Rows:
    """Milliseconds of one layer's attention, forward and with backward, and its kernel launches."""
    rows: Rows = []
    for heads, groups, size in [(4, 2, 32)] if trial.small else [GLM_HEADS, GROUPED_HEADS]:
        for load, pack in packs(trial).items():
            length = pack.segments[-1][1]
            for name, attend in candidates(pack.segments, trial.device, size**-0.5).items():
                row: dict[str, Any] = {"heads": f"{heads}/{groups} x {size}", "load": load}
                row |= {"segments": len(pack.segments), "tokens": length, "candidate": name}
                rows.append(row)
                try:
                    row |= _time_of_one(attend, (heads, groups, size, length), trial.device, name)
                except Exception as error:
                    row["error"] = f"{type(error).__name__}: {error}"[:300]
    return rows


def _time_of_one(
    attend: Attention, shape: tuple[int, int, int, int], device: torch.device, name: str
) -> dict[str, Any]:
    heads, groups, size, length = shape
    inputs = [
        torch.randn(1, n, length, size, device=device, dtype=torch.bfloat16) for n in (heads, groups, groups)
    ]
    weight = torch.randn(1, length, heads, size, device=device, dtype=torch.bfloat16)
    with torch.no_grad():
        row: dict[str, Any] = {"forward ms": milliseconds(lambda: attend(*inputs), device)}
    if device.type != "cuda" and name != "by segment":
        return row
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]

    def both() -> None:
        torch.autograd.grad(attend(*leaves), leaves, weight)

    row["with backward ms"] = milliseconds(both, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        row["launches"], _ = profiled(both)
        row["peak MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return row


def block_masks(trial: Trial) -> Rows:
    """Milliseconds to make a micro-batch's block mask, and of a call at a length that was not seen before."""
    rows: Rows = []
    for load, pack in packs(trial).items():
        call = milliseconds(
            lambda pack=pack: segment_tree.block_mask(pack.segments, trial.device), trial.device
        )
        rows.append({"what": f"block mask, {load}", "tokens": pack.segments[-1][1], "ms": call})
    if trial.device.type == "cuda":
        import time

        for trees, prompt in ((20, 400), (7, 333), (3, 40), (1, 5)):
            pack = short_pack(1000, trees=trees, prompt=prompt, seed=trees)
            length = pack.segments[-1][1]
            leaves = [
                torch.randn(1, 20, length, 256, device=trial.device, dtype=torch.bfloat16, requires_grad=True)
                for _ in range(3)
            ]
            attend = candidates(pack.segments, trial.device, 1 / 16)["flex"]
            torch.cuda.synchronize()
            started = time.perf_counter()
            torch.autograd.grad(attend(*leaves).sum(), leaves)
            torch.cuda.synchronize()
            rows.append(
                {
                    "what": "first flex call, with backward",
                    "tokens": length,
                    "ms": (time.perf_counter() - started) * 1e3,
                }
            )
    return rows


def head(trial: Trial) -> Rows:
    """Logprobs of the head: error against float64, time and memory; logits in bfloat16 and in float32."""
    hidden, vocabulary, count = (64, 1000, 256) if trial.small else (2048, 154_880, 8192)
    random = torch.Generator(device=trial.device).manual_seed(0)
    rows_ = torch.randn(count, hidden, generator=random, device=trial.device).bfloat16()
    weight = (
        torch.randn(vocabulary, hidden, generator=random, device=trial.device) * hidden**-0.5 * 4
    ).bfloat16()
    targets = (rows_ @ weight.t()).topk(3, dim=-1).indices[:, 2] if trial.small else _third(rows_, weight)
    checked = slice(0, 64)
    logits = rows_[checked].double() @ weight.double().t()
    exact = torch.log_softmax(logits, -1).gather(1, targets[checked, None]).squeeze(1)

    def rounded(hidden_rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        return (hidden_rows @ matrix.t()).float()

    found: Rows = []
    for name, replacement in (("logits in bf16", rounded), ("logits in fp32", None)):
        leaves = rows_.clone().requires_grad_()

        def call(leaves: torch.Tensor = leaves) -> torch.Tensor:
            logprobs: torch.Tensor = TokenLogprobs.apply(leaves, weight, targets, 1.0, 1024)[0]
            return logprobs

        def both(leaves: torch.Tensor = leaves, call: Callable[[], torch.Tensor] = call) -> None:
            torch.autograd.grad(call().sum(), leaves)

        row: dict[str, Any] = {"head": name}
        with patch("rezero_ray.learning.head._float32_logits", replacement) if replacement else nullcontext():
            error = (call().detach()[checked].double() - exact).abs()
            row |= {"mean error": error.mean().item(), "largest": error.max().item()}
            row["ms"] = milliseconds(both, trial.device, rounds=3, warm_up=1)
        found.append(row)
    return found


def _third(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A likely token a row, so that errors show at the size that trained tokens have."""
    return torch.cat([(part @ weight.t()).topk(3, dim=-1).indices[:, 2] for part in rows.split(1024)])


def experts(trial: Trial) -> Rows:
    """One layer's experts, frozen, forward and backward to the hidden states, by Transformers' implementation."""
    from transformers.models.glm4_moe_lite.modeling_glm4_moe_lite import Glm4MoeLiteMoE

    config = glm_config(trial.small)
    tokens = 128 if trial.small else 16_000
    found: Rows = []
    layer: nn.Module | None = None
    for name in ("grouped_mm", "batched_mm", "eager"):
        if name == "batched_mm" and not trial.small:
            continue  # one copy of the expert's weights a token: 1.2 TB
        config._experts_implementation = name
        if layer is None:
            with torch.device(trial.device):
                layer = Glm4MoeLiteMoE(config).bfloat16()
            for parameter in layer.parameters():
                nn.init.normal_(parameter, std=0.02)
                parameter.requires_grad_(False)
        hidden = torch.randn(
            1, tokens, config.hidden_size, device=trial.device, dtype=torch.bfloat16, requires_grad=True
        )

        def both(layer: nn.Module = layer, hidden: torch.Tensor = hidden) -> None:
            torch.autograd.grad(layer(hidden).sum(), hidden)

        row: dict[str, Any] = {"experts": name, "ms": milliseconds(both, trial.device, rounds=3)}
        flops = 2 * 2 * tokens * 3 * config.hidden_size * config.moe_intermediate_size
        flops *= config.num_experts_per_tok + config.n_shared_experts
        row["TFLOP/s"] = flops / row["ms"] / 1e9
        if trial.device.type == "cuda":
            row["launches"], kernels = profiled(both)
            row["top"] = "; ".join(f"{k['kernel'][:40]} {k['ms']}" for k in kernels[:6])
        found.append(row)
    return found


def norms(trial: Trial) -> Rows:
    """Element-wise parts of a layer, forward and backward: as Transformers has them, and fused."""
    from torch.nn.functional import rms_norm, silu
    from transformers.models.glm4_moe_lite import modeling_glm4_moe_lite as glm

    tokens, hidden, inner = (128, 64, 32) if trial.small else (16_000, 2048, 1536)
    norm = glm.Glm4MoeLiteRMSNorm(hidden, 1e-5).to(trial.device, torch.bfloat16)
    x = torch.randn(tokens, hidden, device=trial.device, dtype=torch.bfloat16, requires_grad=True)
    gate, up = (
        torch.randn(4 * tokens, inner, device=trial.device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(2)
    )
    calls: dict[str, tuple[Any, tuple[torch.Tensor, ...]]] = {
        "RMSNorm, Transformers": (norm, (x,)),
        "RMSNorm, torch's rms_norm": (lambda a: rms_norm(a, (hidden,), norm.weight.detach(), 1e-5), (x,)),
        "SwiGLU, Transformers": (lambda g, u: silu(g) * u, (gate, up)),
    }
    if trial.device.type == "cuda":
        calls["RMSNorm, compiled"] = (torch.compile(norm.forward, dynamic=True), (x,))
        calls["SwiGLU, compiled"] = (torch.compile(lambda g, u: silu(g) * u, dynamic=True), (gate, up))
    norm.weight.requires_grad_(False)
    found: Rows = []
    for name, (call, inputs) in calls.items():
        weight = torch.randn_like(call(*inputs))

        def both(call: Any = call, inputs: Any = inputs, weight: torch.Tensor = weight) -> None:
            torch.autograd.grad(call(*inputs), inputs, weight)

        row: dict[str, Any] = {"what": name, "ms": milliseconds(both, trial.device)}
        if trial.device.type == "cuda":
            row["launches"], _ = profiled(both)
        found.append(row)
    with torch.no_grad():
        plain, fused = norm(x), rms_norm(x, (hidden,), norm.weight, 1e-5)
    found.append({"what": "rms_norm against RMSNorm, relative error", "ms": relative_error(fused, plain)})
    return found


class Slice:
    """A few layers of GLM-4.7-Flash's shape with an adapter, and one micro-batch's forward and backward pass."""

    def __init__(self, trial: Trial) -> None:
        self.config = glm_config(trial.small)
        self.policy: PolicyModel = make_policy(self.config, run_config(), trial.device)
        self.device = trial.device
        self.parameters = [parameter for _, parameter in self.policy.adapter_parameters()]

    def loss(self, pack: MicroBatch) -> torch.Tensor:
        logprobs, _ = self.policy(**micro_batch_tensors(pack, self.device))
        advantages = torch.as_tensor(pack.advantages, device=self.device)
        return -(logprobs * advantages).sum() / 8192

    def gradients(self, pack: MicroBatch) -> torch.Tensor:
        """Of all adapter parameters, as one float32 vector."""
        found = torch.autograd.grad(self.loss(pack), self.parameters)
        return torch.cat([gradient.flatten().float() for gradient in found])


@contextmanager
def by_segment() -> Iterator[None]:
    """The CPU's path of attention, on any device."""
    with patch.object(segment_tree, "block_mask", lambda *_: None):
        yield


def slice_time(trial: Trial) -> Rows:
    """Tokens a second of forward, recomputation and backward; fraction of the product rate; memory; launches."""
    model = Slice(trial)
    found: Rows = []
    for load, pack in packs(trial, model.config.vocab_size).items():
        gradients: dict[str, torch.Tensor] = {}
        for name, path in (("the product's", nullcontext), ("by segment", by_segment)):
            row: dict[str, Any] = {"load": load, "attention": name, "tokens": len(pack.token_ids)}
            found.append(row)
            try:
                with path():
                    row |= _time_of_slice(trial, model, pack, f"{load}, {name}")
                    gradients[name] = model.gradients(pack)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:300]
        if len(gradients) == 2:
            found[-1]["gradients differ"] = relative_error(*gradients.values())
    return found


def _time_of_slice(trial: Trial, model: Slice, pack: MicroBatch, name: str) -> dict[str, Any]:
    tokens, config = len(pack.token_ids), model.config

    def step() -> None:
        torch.autograd.grad(model.loss(pack), model.parameters)

    if trial.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ms = milliseconds(step, trial.device, rounds=3)
    # Forward, recomputation, and the backward pass to the activations; the head has two products.
    flops = 3 * 2 * tokens * active_parameters(config)
    flops += 2 * 2 * len(pack.targets) * config.vocab_size * config.hidden_size
    row: dict[str, Any] = {"ms": ms, "tokens/s": tokens / ms * 1e3, "TFLOP/s": flops / ms / 1e9}
    if "peak_tflops" in trial.result:
        row["of peak"] = row["TFLOP/s"] / trial.result["peak_tflops"]
    if trial.device.type == "cuda":
        row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
        launches, kernels = profiled(step)
        row["launches a layer"] = launches / config.num_hidden_layers
        trial.result.setdefault("profiles", {})[name] = kernels[:40]
    return row


def accumulation(trial: Trial) -> Rows:
    """Sixteen micro-batches against one, gradients summed in bfloat16 and in float32; the yardstick is the sum in
    float64 of the sixteen, so that what is seen is the summation alone."""
    model = Slice(trial)
    vocabulary, count = model.config.vocab_size, 4 if trial.small else 16
    size = {"trees": 1, "prompt": 20} if trial.small else {"trees": 2, "prompt": 200}
    parts = [short_pack(vocabulary, seed=seed, **size) for seed in range(count)]
    gradients = [model.gradients(part) for part in parts]
    exact = torch.stack([g.double() for g in gradients]).sum(0)
    found: Rows = []
    for dtype in (torch.bfloat16, torch.float32):
        total = torch.zeros_like(gradients[0], dtype=dtype)
        for gradient in gradients:
            total += gradient.to(dtype)
        found.append(
            {"summed in": str(dtype).removeprefix("torch."), "relative error": relative_error(total, exact)}
        )
    return found


STAGES = (
    (limits, 5.0),
    (attention_values, 20.0),
    (slice_time, 40.0),
    (attention_time, 40.0),
    (head, 10.0),
    (experts, 15.0),
    (norms, 15.0),
    (block_masks, 20.0),
    (accumulation, 15.0),
)


def main() -> int:
    torch.manual_seed(0)
    options = arguments(__doc__ or "")
    trial = Trial("stage1_torch", options)
    for measure, needed in STAGES:
        trial.section(measure.__name__, measure, needed if not trial.small else 0.0)
    print(f"\n{len(trial.failed)} sections failed: {', '.join(trial.failed) or 'none'}", flush=True)
    return 1 if trial.failed else 0


if __name__ == "__main__":
    sys.exit(main())
