"""Claims about how a loss is asked for: names, options, errors, and no torch on the way."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from pydantic import BaseModel, ValidationError

from rezero_ray.losses import build_loss
from rezero_ray.losses.options import OPTIONS, ImportanceSamplingOptions, LossOptions

UNITS = {
    "importance_sampling": "tokens",
    "grpo": "sequences",
    "dapo": "tokens",
    "dr_grpo": "sequences",
    "gspo": "sequences",
    "cispo": "tokens",
    "sapo": "sequences",
}


class Trainer(BaseModel):
    loss: LossOptions = ImportanceSamplingOptions()


def test_options_load_without_torch() -> None:
    check = "import sys, rezero_ray.losses.options; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_loss_builds_from_its_name_and_from_its_options(name: str) -> None:
    loss = build_loss({"type": name})
    assert loss.normalizer_unit == UNITS[name]
    assert loss.options == build_loss(loss.options).options == OPTIONS[name]()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_described(name: str) -> None:
    assert all(field.description for field in OPTIONS[name].model_fields.values())


def test_a_table_without_type_is_the_default_loss() -> None:
    # The masks of the design's contract file.
    table = tomllib.loads(
        """
        token_mask_low = 0.125
        token_mask_high = 8.0
        geo_mask_low = 0.1
        geo_mask_high = 10.0
        sequence_mask_low = 0.0
        sequence_mask_high = 100.0
        """
    )
    options = Trainer.model_validate({"loss": table}).loss
    assert options == ImportanceSamplingOptions() == build_loss(table).options == build_loss({}).options


def test_the_schema_tells_losses_apart_by_type() -> None:
    options = Trainer.model_validate({"loss": {"type": "dapo", "clip_high": 0.3}}).loss
    assert (options.type, options.normalizer_unit) == ("dapo", "tokens")
    assert Trainer.model_validate_json(Trainer(loss=options).model_dump_json()).loss == options
    for table in ({"type": "dapo", "ratio_max": 2.0}, {"type": "dapoo"}):
        with pytest.raises(ValidationError):
            Trainer.model_validate({"loss": table})
    assert "clip_high" in str(Trainer.model_json_schema())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"type": "dapoo"}, r"'dapoo'; did you mean 'dapo'\? valid are importance_sampling, grpo, dapo"),
        ({"type": "zzz"}, "'zzz'; valid are"),
        ({"type": ["grpo"]}, "unknown loss type"),
        ({"type": "grpo", "clip_hihg": 0.2}, r"'clip_hihg'.*did you mean 'clip_high'\?.*valid are"),
        ({"clip_low": 0.2}, "belongs to grpo, dapo, dr_grpo, gspo"),
        ({"token_mask_low": 9.0}, "token_mask_low = 9.0 must be below token_mask_high = 8.0"),
        ({"geo_mask_low": float("nan")}, "geo_mask_low"),
        ({"type": "grpo", "clip_low": -0.1}, "clip_low = -0.1"),
        ({"type": "grpo", "clip_low": 1.0}, "clip_low"),
        ({"type": "grpo", "dual_clip": 1.1}, "above 1 \\+ clip_high"),
        ({"type": "cispo", "ratio_max": 0.5}, "ratio_max"),
        ({"type": "cispo", "tis_cap": 0.0}, "tis_cap"),
        ({"type": "dr_grpo", "constant_length": 0}, "constant_length"),
        ({"type": "sapo", "tau_neg": 0.0}, "tau_neg"),
        ({"kl_coef": -1.0}, "kl_coef"),
        ({"kl_coef": float("inf")}, "kl_coef"),
        ({"kl_estimator": "k4"}, "'k1', 'k2' or 'k3'"),
        ({"kl_coef": "much"}, "kl_coef"),
        ("grpo", "mapping"),
    ],
)
def test_a_wrong_request_names_what_is_valid(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_loss(options)
