"""Whatever is thrown at the loader, it answers with a config or with a clean error."""

import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rezero_ray.config import Config, ConfigError, load_config
from rezero_ray.config.keys import all_keys

CONTRACT = Path(__file__).with_name("contract.toml")

scalars = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from(["grpo", "cpu", "merged", "q_proj", date(2026, 1, 1)]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
paths = st.sampled_from(all_keys()) | st.lists(st.text(max_size=3), min_size=1, max_size=3).map(".".join)


def answer(raw: bytes, *flags: str) -> Config | ConfigError:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "random.toml")
        file.write_bytes(raw)
        try:
            return load_config([CONTRACT, file], flags)
        except ConfigError as error:
            assert error.problems and all(problem.what for problem in error.problems)
            assert str(error).startswith("error: ")
            return error


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed([part for part in path.split(".") if part != "0"]):
        value = {key: value}
    return value if isinstance(value, dict) else {"key": value}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
@example(b"\xff")
@example(b"a = " + b"[" * 5000)
@example(b"a = " + b"9" * 5000)
@example(b"a = 1\0")
@example(b"\xef\xbb\xbfmax_steps = 3")
def test_random_bytes_are_answered(raw: bytes) -> None:
    answer(raw)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abmodel_steps.=[]{}\"'#\n ,0-9e+:", max_size=60))
def test_random_text_is_answered(text: str) -> None:
    answer(text.encode())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(paths, anything)
@example("trainer.loss.type", ["grpo"])
@example("trainer.loss.type", {"a": 1})
@example("trainer.loss", [1])
@example("orchestrator.env", {"id": "x"})
@example("orchestrator.env", [1])
@example("trainer.optim.lr", 10**400)
@example("trainer.optim.betas", [1])
@example("infra.kind", "modal")
def test_random_values_in_known_places_are_answered(path: str, value: Any) -> None:
    answer(tomli_w.dumps(nested(path, value)).encode())


@settings(max_examples=200, deadline=None)
@given(paths, st.text(max_size=10))
@example("trainer.loss.type", "grpo")
@example("orchestrator.env.0.args.x", "{a = 1}")
@example("orchestrator.env.99999999999999999999", "1")
@example("trainer.loss", "{ type = 'grpo' }")
@example("model.name", "\udcff")
def test_random_flags_are_answered(path: str, value: str) -> None:
    answer(b"", f"--{path}", value)


@pytest.mark.parametrize("flags", [["--"], ["--="], ["--.a=1"], ["x"], ["--a", "--b"], ["--max_steps="]])
def test_malformed_flags_are_answered(flags: list[str]) -> None:
    assert isinstance(answer(b"", *flags), ConfigError)
