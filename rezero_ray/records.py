"""The records that flow through a run, in the order in which they arise.

    Prompt -> Turn -> Rollout -> Group -> MicroBatch -> StepReport

All are frozen. Token ids are the engine's own, never re-tokenised text. Axis names: T tokens of a packed
micro-batch, N trained tokens in it, G rollouts of a group. `rezero_ray.codec` makes bytes and JSON of them.
"""

from typing import Any

import msgspec
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
TokenIds = np.ndarray[Any, np.dtype[np.int32]]
Logprobs = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.uint8]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
"""A file's content. Ray hands an array over without a copy, and `bytes` not."""


BASE_POLICY = -1
"""Policy version of the model without any adapter. Those that are trained count from 0."""


class Sizes(msgspec.Struct, frozen=True):
    """Tasks of an environment: for training, and held out."""

    train: int
    held_out: int


class Prompt(msgspec.Struct, frozen=True):
    """One task to roll out. `index` counts the prompts of the run from 0 and seeds its sampling; a held-out one,
    which is never trained on, has a negative index and its example among the environment's held-out ones."""

    index: int
    environment: str
    example: int
    held_out: bool = False


class Turn(msgspec.Struct, frozen=True):
    """One completion of the policy: the ids it saw, the ids it wrote and their logprobs."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]


class Rollout(msgspec.Struct, frozen=True, eq=False):
    """One scored trajectory of T tokens.

    `token_ids[:prompt_length]` is the first prompt, shared by the group. Behind it, `loss_mask` is 1 where the
    policy wrote the token and 0 where the environment did; `logprobs` are the engine's, 0 where the mask is 0.
    All three are [T]. `zeroed`: the reward functions that failed and count as 0.0, and why.
    """

    token_ids: TokenIds
    logprobs: Logprobs
    loss_mask: Mask
    prompt_length: int
    turns: int
    policy_version: int
    reward: float
    components: dict[str, float]
    text: list[dict[str, str]]
    truncated: bool = False
    error: str | None = None
    zeroed: dict[str, str] = {}


class Group(msgspec.Struct, frozen=True, eq=False):
    """The rollouts of one prompt: whole, and all of one policy version.

    `seconds` of wall time, and those of them that scoring took, where they can be told from the rest.
    """

    prompt: Prompt
    rollouts: list[Rollout]
    seconds: float
    scoring: float | None = None

    @property
    def policy_version(self) -> int:
        return self.rollouts[0].policy_version


class MicroBatch(msgspec.Struct, frozen=True, eq=False):
    """Sequences packed on one axis for one forward pass of one learner rank.

    Attributes:
        token_ids, position_ids: int64 [T].
        segments: (start, end, prefix_start, prefix_end) each; tokens [start, end) attend causally to one another
            and to all of [prefix_start, prefix_end), the prompt they share (empty: start == end of the prefix).
        sources: int64 [N], position on axis T whose hidden state predicts the trained token.
        targets: int64 [N], id of the trained token.
        inference_logprobs, advantages, loss_mask: float32 [N].
        sequence_ids: int64 [N], the rollout a token belongs to, unique within the step.
    """

    token_ids: Array
    position_ids: Array
    segments: list[tuple[int, int, int, int]]
    sources: Array
    targets: Array
    inference_logprobs: Array
    advantages: Array
    loss_mask: Array
    sequence_ids: Array


class StepReport(msgspec.Struct, frozen=True):
    """What the learner says of one optimizer step; `metrics` are means over all trained tokens of all ranks.

    `peak_bytes` of memory are this rank's own: resident on the CPU, reserved by torch on a GPU.
    """

    step: int
    loss: float
    grad_norm: float
    lr: float
    metrics: dict[str, float]
    micro_batches: int
    computed_tokens: int
    seconds: float
    peak_bytes: int = 0


class Adapter(msgspec.Struct, frozen=True, eq=False):
    """A LoRA adapter in PEFT's format: the content of `adapter_model.safetensors` and `adapter_config.json`, and the
    SHA-256 of the weights."""

    weights: Bytes
    config: bytes
    digest: str
