"""Claims about the names that MLflow is given: it takes them, they stay apart, and they can be read back."""

import posixpath
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.tracking.metric_names import LONGEST, mlflow_name, original_name

AWKWARD = st.text(alphabet=st.sampled_from(list("_xat@/.(%)25f8hs: -é\ud83d\\\n")), min_size=1, max_size=14)
ANY = st.text(alphabet=st.characters(), min_size=1, max_size=20)


def is_taken(name: str) -> bool:
    """By the rules of mlflow 3.17 (mlflow.utils.validation), which a test of the real store tries too."""
    normal = posixpath.normpath(name)
    apart = normal == name and name != "." and not name.startswith(("..", "/"))
    return bool(re.fullmatch(r"[/\w.\- ]+", name)) and apart and len(name) <= LONGEST


@settings(max_examples=500, deadline=None)
@given(AWKWARD | ANY)
def test_every_name_is_taken_and_can_be_read_back(name: str) -> None:
    assert is_taken(mlflow_name(name))
    assert original_name(mlflow_name(name)) == name


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from("a(/_"), max_size=20), st.text(min_size=1, max_size=3))
def test_long_names_are_taken_and_stay_apart(begin: str, end: str) -> None:
    name = begin + "a/" * LONGEST
    assert is_taken(mlflow_name(name))
    assert mlflow_name(name + end) != mlflow_name(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reward/phishing-detection/mean", "reward/phishing-detection/mean"),
        ("eval/redteam-attack/avg@4", "eval/redteam-attack/avg_at_4"),
        ("eval/redteam-attack/avg_at_4", "eval/redteam-attack/avg_x5f_at_4"),
        ("reward/x/<lambda>", "reward/x/_x3c_lambda_x3e_"),
        ("reward/x/format (%)", "reward/x/format _x28__x25__x29_"),
        ("max_attempts", "max_attempts"),
        ("../mlflow", "_x2e_./mlflow"),
    ],
)
def test_names_stay_readable(name: str, expected: str) -> None:
    assert mlflow_name(name) == expected
