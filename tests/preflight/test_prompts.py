"""Claims about prompts in the preflight: they are built as a run builds them, and measured in tokens."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from rezero_ray.chat import ChatTokenizer
from rezero_ray.config import load_config
from rezero_ray.foreign.rezero_child.examples import longest_prompts
from rezero_ray.preflight import environments
from rezero_ray.preflight.environments import examine_prompts, longest_in_tokens
from rezero_ray.preflight.findings import Findings
from rezero_ray.preflight.scripted_policy import ScriptedPolicy
from tests.config.run_request import write_right
from tests.record_builders import SMOLLM2

ENVIRONMENT = """
class Environment:
    env_id = env_args = None
    max_turns = {turns}
    def get_dataset(self):
        return {{"prompt": {prompts}}}
def load_environment(): return Environment()
"""
PARTS = [{"type": "text", "text": "one "}, {"type": "text", "text": "two", "image_url": None}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    if not SMOLLM2.exists():
        pytest.skip("needs SmolLM2's tokenizer: make models/SmolLM2-135M-Instruct")
    return PreTrainedTokenizerFast.from_pretrained(SMOLLM2)


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Callable[..., Findings]:
    """What the preflight finds in an environment with these prompts, with SmolLM2's tokenizer or without any."""
    monkeypatch.syspath_prepend(tmp_path)

    def examine(prompts: str, *, turns: int = 1, here: bool = True) -> Findings:
        (tmp_path / "said_env.py").write_text(ENVIRONMENT.format(turns=turns, prompts=prompts), "utf-8")
        monkeypatch.delitem(sys.modules, "said_env", raising=False)
        monkeypatch.setattr(environments, "_tokenizer", lambda facts: tokenizer if here else None)
        config = load_config([write_right(tmp_path)], ["--orchestrator.env.0.id=said-env"])
        return examine_prompts(config, None)

    return examine


@pytest.mark.parametrize(
    "dense",
    ["\U0001f600" * 300, "7" * 500, "漢" * 400, "<|im_end|>" * 80],
    ids=lambda text: text[:4],
)
def test_the_longest_prompt_in_tokens_is_found_among_longer_texts(
    examined: Callable[..., Findings], dense: str
) -> None:
    """512 tokens less 64 for the answer; the others have 1,500 letters and some 300 tokens."""
    (problem,) = examined(repr(["letter " * 214] * 300 + [dense])).problems
    assert "the longest prompt of said-env has" in problem.what


def test_of_a_large_data_set_those_are_measured_that_are_likely_to_be_the_longest() -> None:
    prompts = ["a word " * 100] * 50 + ["9" * 300, "x" * 500, "é" * 200]
    assert longest_prompts(prompts, 1000) == [
        "é" * 200,
        "9" * 300,
    ] and longest_prompts(prompts, 0) == ["é" * 200]
    assert len(longest_prompts(prompts, 10**6)) == len(prompts)


def test_a_prompt_of_another_form_is_looked_at_however_short_it_is() -> None:
    image = [{"role": "user", "content": [IMAGE]}]
    assert image in longest_prompts(["a word " * 100] * 50 + [image], 1000)


def test_what_no_tokenizer_takes_in_a_prompt_is_a_note(examined: Callable[..., Findings]) -> None:
    found = examined("['sound', 'half \\ud83d of a pair', [{'role': 'user', 'content': 'a\\0b'}]]")
    assert not found.problems
    assert any("2 prompts hold NUL or halves of surrogate pairs" in note for note in found.notes)


def test_text_parts_and_bare_texts_are_measured_as_a_run_shows_them(
    examined: Callable[..., Findings], tokenizer: Any
) -> None:
    assert not examined(repr([[{"role": "user", "content": PARTS}], "one two"])).problems
    chat = ChatTokenizer(tokenizer)
    for prompt in ("one two", [{"role": "user", "content": PARTS}], "a<|im_end|>\0b"):
        assert longest_in_tokens(tokenizer, [prompt]) == len(chat.prompt_ids(prompt))


@pytest.mark.parametrize("here", [True, False], ids=["with a tokenizer", "without"])
@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        (
            [{"role": "user", "content": [*PARTS, IMAGE]}],
            "message 0 (user): it holds a part of type 'image_url'",
        ),
        ([], "the conversation has no message"),
        ([{"role": "user", "content": {"a": 1}}], "message 0 (user): its content is of type dict"),
        ([{"content": "x"}], "message 0 has no role"),
        ([{"role": "user"}], "message 0 (user): its content is None"),
        (7, "a conversation is a list of messages, not of type int"),
    ],
)
def test_a_prompt_that_the_policy_cannot_be_shown_is_refused_before_the_run(
    examined: Callable[..., Findings], prompt: Any, what: str, here: bool
) -> None:
    (problem,) = examined(repr(["sound", prompt]), here=here).problems
    assert (
        problem.what == f"the policy cannot be shown a prompt of said-env: {problem.what.partition(': ')[2]}"
    )
    assert problem.key == "orchestrator.env.0" and what in problem.what


FOR_M = "{% for m in messages %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            FOR_M + "{{ m.role }}{{ m.content | upper }}|{% endfor %}",
            "does not write the assistant's replies",
        ),
        (
            FOR_M + "{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}",
            "does not write the assistant's",
        ),
        (
            FOR_M + "{% if m.role == 'assistant' %}{{ m.content }}{% endif %}-{% endfor %}",
            "leaves out or changes",
        ),
        (
            FOR_M + "[Round {{ loop.index }}]{{ m.content }}|{% endfor %}",
            "later turn as it writes an earlier",
        ),
        (FOR_M + "{{ m.content }}{{ m.content }}|{% endfor %}", "a later turn as it writes an earlier"),
        (
            FOR_M + "{% if loop.index > 1 %}{{ raise_exception('one turn') }}{% endif %}-{% endfor %}",
            "one turn",
        ),
    ],
)
def test_a_template_that_does_something_unexpected_to_a_conversation_is_noticed(
    examined: Callable[..., Findings],
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    template: str,
    why: str,
) -> None:
    """Where an environment has several turns. An upper-case prompt or an empty one is refused as a prompt."""
    monkeypatch.setattr(tokenizer, "chat_template", template)
    environments._chat.cache_clear()
    try:
        (why_not,) = [environments._not_continued(tokenizer, tools=False)]
        assert why_not is not None and (why in why_not or "leaves out or changes" in why_not)
        problems = examined("['-']", turns=3).problems
        assert [problem.key for problem in problems] == ["model.name"]
    finally:
        environments._chat.cache_clear()


def test_the_check_tells_an_environment_that_rewrites_the_conversation() -> None:
    policy = ScriptedPolicy(["first", "second"])
    asked = {"role": "user", "content": "Say it."}
    reply = {"role": "assistant", "content": "first"}
    more = {"role": "user", "content": "Again."}
    ask = {"rollout": 0, "tools": []}
    assert policy.answer({**ask, "call": 1, "messages": [asked]})["text"] == "first"
    assert policy.answer({**ask, "call": 2, "messages": [asked, reply, more]})["text"] == "second"
    policy.require_sequence([1, 2])
    policy.answer({**ask, "call": 3, "messages": [more, reply, more]})
    with pytest.raises(ValueError, match=r"it rewrites the conversation: message 0 \(user\) was changed"):
        policy.require_sequence([1, 2, 3])
    refused = policy.answer({**ask, "call": 4, "messages": [{"role": "user", "content": [IMAGE]}]})
    assert "part of type 'image_url'" in refused["error"]
    with pytest.raises(ValueError, match="the policy cannot be shown"):
        policy.require_sequence([1])
