"""The resolved TOML reproduces the run; its id says which runs compute the same."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.config import Config, config_id, dump_toml, load_config

CONTRACT = Path(__file__).with_name("contract.toml")

toml_values = st.recursive(
    st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    args=st.dictionaries(st.text(max_size=5), toml_values, max_size=3),
    output=st.text(min_size=1, max_size=20),
    lr=st.floats(min_value=1e-300, max_value=1e300),
    loss=st.sampled_from(["grpo", "dapo", "dr_grpo", "gspo", "cispo", "sapo", "importance_sampling"]),
)
def test_the_dump_round_trips_exactly(args: dict[str, Any], output: str, lr: float, loss: str) -> None:
    config = Config.model_validate(
        {
            "max_steps": 3,
            "output_dir": output,
            "model": {"name": "m"},
            "trainer": {"optim": {"lr": lr}, "loss": {"type": loss}},
            "orchestrator": {"env": [{"id": "e", "args": args}]},
        }
    )
    assert Config.model_validate(tomllib.loads(dump_toml(config)), strict=True) == config


def test_the_dump_of_the_contract_file_loads_to_the_same_config(tmp_path: Path) -> None:
    config = load_config([CONTRACT])
    resolved = tmp_path / "config.toml"
    resolved.write_text(dump_toml(config))
    assert load_config([resolved]) == config


@pytest.mark.parametrize(
    ("flag", "same"),
    [
        ("--output_dir=elsewhere", True),
        ("--max_steps=10", True),
        ("--trainer_gpu_ids=[1, 2]", True),
        ("--device=cpu", True),
        ("--inference.gpu_memory_utilization=0.8", True),
        ("--limits.group=10", True),
        ("--trainer.micro_batch_tokens=8192", True),
        ("--trainer.optim.lr=1e-5", False),
        ("--seed=1", False),
        ("--model.dtype=float32", False),
        ("--orchestrator.rollouts_per_example=8", False),
        ("--orchestrator.env.0.args.seed=1", False),
        ("--trainer.loss.type=grpo", False),
        ("--inference.model.max_model_len=2048", False),
    ],
)
def test_the_id_changes_with_what_changes_the_result_and_with_nothing_else(flag: str, same: bool) -> None:
    assert (config_id(load_config([CONTRACT], [flag])) == config_id(load_config([CONTRACT]))) is same


def test_max_steps_belongs_to_the_id_where_the_schedule_depends_on_it() -> None:
    first, second = (
        config_id(load_config([CONTRACT], ["--trainer.optim.schedule=linear", f"--max_steps={steps}"]))
        for steps in (10, 20)
    )
    assert first != second
