"""The options of every loss, typed and documented once, without torch.

The configuration schema takes `LossOptions` as the type of `[trainer.loss]`; `build_loss` reads plain
mappings with `parsing.parse_options`. What each option does is computed in the file named after the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

KLEstimator = Literal["k1", "k2", "k3"]
NormalizerUnit = Literal["tokens", "sequences"]

DEFAULT_TYPE: Final = "importance_sampling"


class SharedOptions(BaseModel):
    """What every loss takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    normalizer_unit: ClassVar[NormalizerUnit]
    """What a global `normalizer` of this loss counts: loss-mask tokens, or sequences that have any."""

    tis_cap: float | None = Field(
        default=None,
        gt=0,
        description="Cap of the truncated importance weight exp(old - inference) that every token is "
        "multiplied by where the trainer's own old logprobs are given; unset: no such weight.",
    )
    dual_clip: float | None = Field(
        default=None,
        gt=1,
        description="Where the advantage is negative, the ratio counts as at most this; unset: no bound.",
    )
    kl_coef: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight of the KL penalty towards the reference policy.",
    )
    kl_estimator: KLEstimator = Field(
        default="k3",
        description="Per-token KL estimate, d = trainer - reference logprob: k1 is d, k2 is d^2 / 2, "
        "k3 is exp(-d) + d - 1.",
    )


class ImportanceSamplingOptions(SharedOptions):
    """Policy gradient weighted by the detached token ratio, with three masks (prime-rl, early 2026)."""

    normalizer_unit = "tokens"
    type: Literal["importance_sampling"] = Field(default=DEFAULT_TYPE, description="Which loss.")
    token_mask_low: float = Field(
        default=0.125, ge=0, description="A token whose ratio is below this is dropped."
    )
    token_mask_high: float = Field(
        default=8.0, gt=0, description="A token whose ratio is above this is dropped."
    )
    geo_mask_low: float = Field(
        default=0.1, ge=0, description="A sequence whose geometric-mean ratio is below this is dropped."
    )
    geo_mask_high: float = Field(
        default=10.0, gt=0, description="A sequence whose geometric-mean ratio is above this is dropped."
    )
    sequence_mask_low: float = Field(
        default=0.0, ge=0, description="A sequence with any ratio below this is dropped."
    )
    sequence_mask_high: float = Field(
        default=100.0, gt=0, description="A sequence with any ratio above this is dropped."
    )

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        for mask in ("token_mask", "geo_mask", "sequence_mask"):
            low, high = getattr(self, f"{mask}_low"), getattr(self, f"{mask}_high")
            if low >= high:
                raise ValueError(f"{mask}_low = {low} must be below {mask}_high = {high}")
        return self


class ClippedOptions(SharedOptions):
    """What the losses with a clipped ratio have in common."""

    clip_low: float = Field(
        default=0.2, gt=0, lt=1, description="The ratio is clipped from below at 1 - clip_low."
    )
    clip_high: float = Field(
        default=0.2, gt=0, description="The ratio is clipped from above at 1 + clip_high."
    )

    @model_validator(mode="after")
    def _dual_clip_above_clip(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"dual_clip = {self.dual_clip} must be above 1 + clip_high = {1 + self.clip_high}"
            )
        return self


class GRPOOptions(ClippedOptions):
    """Clipped token ratio, mean over each sequence, then over sequences (arXiv:2402.03300)."""

    normalizer_unit = "sequences"
    type: Literal["grpo"] = Field(default="grpo", description="Which loss.")


class DAPOOptions(ClippedOptions):
    """Clipped token ratio with a wider upper clip, mean over all tokens (arXiv:2503.14476)."""

    normalizer_unit = "tokens"
    type: Literal["dapo"] = Field(default="dapo", description="Which loss.")
    clip_high: float = Field(
        default=0.28, gt=0, description="The ratio is clipped from above at 1 + clip_high."
    )


class DrGRPOOptions(ClippedOptions):
    """Clipped token ratio, sum over each sequence divided by a constant length (arXiv:2503.20783)."""

    normalizer_unit = "sequences"
    type: Literal["dr_grpo"] = Field(default="dr_grpo", description="Which loss.")
    constant_length: int | None = Field(
        default=None,
        ge=1,
        description="Tokens by which every sequence's sum is divided, whatever its own length. A run that "
        "leaves it unset takes the longest completion allowed; build_loss by itself takes 1, the bare sum.",
    )


class GSPOOptions(ClippedOptions):
    """Clipped sequence-level ratio, mean over sequences (arXiv:2507.18071)."""

    normalizer_unit = "sequences"
    type: Literal["gspo"] = Field(default="gspo", description="Which loss.")
    clip_low: float = Field(
        default=3e-4, gt=0, lt=1, description="The sequence ratio is clipped from below at 1 - clip_low."
    )
    clip_high: float = Field(
        default=4e-4, gt=0, description="The sequence ratio is clipped from above at 1 + clip_high."
    )


class CISPOOptions(SharedOptions):
    """Policy gradient weighted by the detached, capped token ratio, mean over tokens (arXiv:2506.13585)."""

    normalizer_unit = "tokens"
    type: Literal["cispo"] = Field(default="cispo", description="Which loss.")
    ratio_max: float = Field(
        default=5.0, ge=1, description="Cap of the detached ratio itself (5 as in ScaleRL, arXiv:2510.13786)."
    )


class SAPOOptions(SharedOptions):
    """Token ratio through a sigmoid gate instead of a clip, mean per sequence (arXiv:2511.20347)."""

    normalizer_unit = "sequences"
    type: Literal["sapo"] = Field(default="sapo", description="Which loss.")
    tau_pos: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Gate temperature for positive advantages."
    )
    tau_neg: float = Field(
        default=1.05,
        gt=0,
        allow_inf_nan=False,
        description="Gate temperature for all other advantages; higher fades faster.",
    )


AnyLossOptions: TypeAlias = (
    ImportanceSamplingOptions
    | GRPOOptions
    | DAPOOptions
    | DrGRPOOptions
    | GSPOOptions
    | CISPOOptions
    | SAPOOptions
)

OPTIONS: dict[str, type[AnyLossOptions]] = {
    "importance_sampling": ImportanceSamplingOptions,
    "grpo": GRPOOptions,
    "dapo": DAPOOptions,
    "dr_grpo": DrGRPOOptions,
    "gspo": GSPOOptions,
    "cispo": CISPOOptions,
    "sapo": SAPOOptions,
}
"""Loss names, the default first, and the options of each."""


def type_of(value: Any) -> Any:
    """The union's discriminator: a table without `type` is the default loss."""
    return value.get("type", DEFAULT_TYPE) if isinstance(value, Mapping) else getattr(value, "type", None)


LossOptions = Annotated[
    Annotated[ImportanceSamplingOptions, Tag("importance_sampling")]
    | Annotated[GRPOOptions, Tag("grpo")]
    | Annotated[DAPOOptions, Tag("dapo")]
    | Annotated[DrGRPOOptions, Tag("dr_grpo")]
    | Annotated[GSPOOptions, Tag("gspo")]
    | Annotated[CISPOOptions, Tag("cispo")]
    | Annotated[SAPOOptions, Tag("sapo")],
    Discriminator(type_of),
]
"""The field type for a configuration schema: any loss, told apart by `type`, which may be left out."""
