"""The small modules that the environments share."""

import pytest
import verifiers as vf
from hypothesis import given
from hypothesis import strategies as st
from verifiers.types import TextContentPart

from environments.shared.json_answer import find_json_answer
from environments.shared.message_text import assistant_texts, last_assistant_text, role_of, text_of
from environments.shared.quote_match import groundedness, relevance
from environments.shared.reward_weights import normalised_weights, signed


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": [{"type": "image_url"}, {"type": "text", "text": "hi"}]},
        vf.AssistantMessage(content="hi"),
        vf.AssistantMessage(content=[TextContentPart(text="hi")]),
        {"role": "assistant", "content": ["hi"]},
    ],
)
def test_text_is_read_from_every_kind_of_message(message: object) -> None:
    assert (role_of(message), text_of(message)) == ("assistant", "hi")


@pytest.mark.parametrize("message", [None, 3, {}, [], {"content": None}, vf.AssistantMessage(content=None)])
def test_what_has_no_text_reads_as_empty(message: object) -> None:
    assert text_of(message) == ""


def test_only_the_assistant_is_heard() -> None:
    messages = [
        vf.UserMessage(content="no"),
        vf.AssistantMessage(content="a"),
        {"role": "user", "content": "x"},
    ]
    assert assistant_texts(messages) == ["a"]
    assert last_assistant_text(messages) == "a"
    assert assistant_texts("bare") == ["bare"]
    assert assistant_texts(None) == []


@pytest.mark.parametrize(
    ("text", "fields", "parsed"),
    [
        pytest.param('{"label": "x"}', {"label": "x"}, True, id="clean"),
        pytest.param('Sure: ```json\n{"label": "x"}\n```', {"label": "x"}, True, id="fenced"),
        pytest.param('{"a": 1} {"label": "x"}', {"label": "x"}, True, id="second object"),
        pytest.param('{"label": "x", "n": 0.5, "e": ["q"', {"label": "x", "n": 0.5}, False, id="cut off"),
        pytest.param("{'label': 'x', 'e': ['q']}", {"label": "x", "e": ["q"]}, False, id="single quotes"),
        pytest.param("no object", {}, False, id="prose"),
        pytest.param("[" * 100_000, {}, False, id="deep"),
    ],
)
def test_json_is_found_wherever_it_stands(text: str, fields: dict[str, object], parsed: bool) -> None:
    found = find_json_answer(text, "label")
    assert (found.fields, found.parsed) == (fields, parsed)


@given(st.text(max_size=200))
def test_json_search_never_raises_and_shares_are_shares(text: str) -> None:
    assert 0 <= find_json_answer(text, "label").outside <= 1
    assert 0 <= groundedness(text, "some source text") <= 1
    assert 0 <= relevance(text, ["source", ""]) <= 1


def test_a_longer_run_of_shared_words_is_better_grounded() -> None:
    source = "your parcel is at our depot and we will bring it to you tomorrow morning before noon"
    quotes = ["zebras", "the parcel", "your parcel is here", "your parcel is at our depot"]
    scores = [groundedness(quote, source) for quote in quotes]
    assert scores == sorted(scores)
    assert (scores[0], scores[-1]) == (0, 1)


@given(
    st.lists(st.floats(0, 1e6), min_size=4, max_size=4).filter(lambda weights: sum(weights) > 1e-3),
    st.sampled_from([1.0, -1.0]),
)
def test_a_weighted_sum_of_extremes_stays_in_bounds_to_the_last_bit(
    weights: list[float], side: float
) -> None:
    names = ["a", "b", "c", "d"]
    normalised = normalised_weights(dict.fromkeys(names, 1.0), dict(zip(names, weights, strict=True)))
    total = 0.0
    for name in names:
        total += side * normalised[name]
    assert -1 <= total <= 1
    assert abs(total) > 1 - 1e-6


def test_unknown_component_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'forme'.*form, label"):
        normalised_weights({"form": 1.0, "label": 1.0}, {"forme": 2.0})


@pytest.mark.parametrize("weights", [{"form": float("nan")}, {"form": -1.0}, {"form": 0.0}])
def test_impossible_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        normalised_weights({"form": 1.0}, weights)


def test_signed_clips() -> None:
    assert [signed(x) for x in (-1, 0, 0.5, 1, 2, float("nan"))] == [-1, -1, 0, 1, 1, -1]
