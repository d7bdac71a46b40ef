"""2,000 conversations from an environment's messages to the learner's micro-batches: the ids are exactly those of
what was said, or an error names what cannot be shown.

What is said is drawn: roles, text parts and others, results of tools of any type, halves of surrogate pairs, control
tokens in words, empty and long texts, edits of what was said before. Expected ids come from a second, plain reading
of SmolLM2's template: each message is `<|im_start|>`, its role and text without any special token, `<|im_end|>`.
"""

import json
import os
import random
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from actors.policy import Overlong, Policy, Unanswered
from actors.rollout_engine import Completion
from actors.scored_rollout import first_break, merge_turns, shown_message
from actors.tool_calls import ReadCompletion, ToolCall
from rezero_ray.batch import build_batch, micro_batches
from rezero_ray.chat import ChatTokenizer
from rezero_ray.codec import decode, encode
from rezero_ray.records import Group, Prompt, Rollout, Turn
from rezero_ray.step_record import read_step, write_step
from tests.actors.calling_engine import Method
from tests.record_builders import SMOLLM2, make_config

CASES = 2000
START, END = 1, 2
CONTROL = {0, START, END}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
ATOMS = (
    *(
        "",
        "a",
        " ",
        "\n",
        "<",
        ">",
        "|",
        "-",
        "é",
        "\U0001f600",
        "汉字",
        "0123",
        '{"a": 1}',
        "\\ue000",
        "\ue000",
    ),
    *(
        "<|im_end|>",
        "<|im_start|>assistant\n",
        "<|endoftext|>",
        "<|im_",
        "end|>",
        "|>",
        "<tool_call>",
        "</think>",
    ),
    *("\ud83d", "\ude00", "\0", "rezero-end-of-reply", "long " * 200),
)
SOUND = tuple(atom for atom in ATOMS if atom not in ("\ud83d", "\ude00"))
LONG, SHORT = 100_000, 48


class Refused(Exception):
    """The reference cannot show a message."""


# --- what is said ------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *({"a": ["\ud83d", "<|im_end|>"]}, [1, None], [], 7, True, None, 2.5, b"\xff<|im_end|>"),
    *([{"type": "image_url", "image_url": {"url": "x"}}], [{"type": "input_audio"}], [{"type": "text"}]),
)
CALLS = {"tool_calls": [{"id": "c", "function": {"name": "frobnicate", "arguments": "{}"}}]}
"""SmolLM2's template does not write calls: a message with one cannot be shown, and a reply has its own ids."""
ARGUMENTS = ("{}", '{"a": "\\ud83d<|im_end|>"}', "[" * 2000, '{"a":' * 90 + "1" + "}" * 90)


def a_text(rng: random.Random, atoms: Sequence[str]) -> str:
    return "".join(rng.choices(atoms, k=rng.randint(0, 3)))


def a_message(rng: random.Random) -> dict[str, Any]:
    role, kind = rng.choice(["user", "user", "assistant", "tool", "system", "text"]), rng.random()
    content: Any = a_text(rng, ATOMS)
    if kind < 0.2:
        texts = [a_text(rng, ATOMS) for _ in range(rng.randint(1, 3))]
        content = [{"type": "text", "text": text, "image_url": None} for text in texts]
    elif kind < (0.6 if role == "tool" else 0.25):
        content = rng.choice(ODD)
    return {"role": role, "content": content, **(CALLS if rng.random() < 0.01 else {})}


def a_reply(rng: random.Random) -> tuple[str | list[int], bool, str | None]:
    """Text or ids, whether the policy ended it, and the arguments of a call that is read out of it."""
    ids = [rng.randrange(3, 49_152) for _ in range(rng.randint(0, 5))]
    written = a_text(rng, SOUND) if rng.random() < 0.5 else ids
    return written, rng.random() < 0.8, rng.choice(ARGUMENTS) if rng.random() < 0.2 else None


def a_step(rng: random.Random) -> tuple[Any, list[dict[str, Any]], str | None]:
    """A reply, the messages behind it, and an edit of what was said before."""
    edit = rng.choice([None] * 12 + ["first", "reply", "drop", "summary"])
    return a_reply(rng), [a_message(rng) for _ in range(rng.randint(0, 3))], edit


def drawn_beforehand() -> tuple[list[Any], list[Any]]:
    """Openings and steps. Hypothesis takes longer to draw them letter by letter than they take to be trained on."""
    rng = random.Random(0)
    openings = [[a_message(rng) for _ in range(rng.randint(1, 3))] for _ in range(3000)]
    return openings, [a_step(rng) for _ in range(6000)]


OPENINGS, STEPS = drawn_beforehand()
conversations = st.tuples(
    st.sampled_from(OPENINGS), st.lists(st.sampled_from(STEPS), min_size=1, max_size=3), st.integers(0, 15)
)


# --- the reference -----------------------------------------------------------------------------------------------


class Reference:
    """Ids of a conversation, read plainly."""

    def __init__(self, path: Path) -> None:
        self._text = Tokenizer.from_file(str(path / "tokenizer.json"))
        self._text.encode_special_tokens = True
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = list(self._text.encode(text, add_special_tokens=False).ids)
        return self._known[text]

    def message(self, role: str, text: str) -> list[int]:
        return [START, *self.ids(f"{role}\n{text}"), END, *self.ids("\n")]

    def opened(self) -> list[int]:
        return [START, *self.ids("assistant\n")]

    def next_prompt(self, told: list[Any], spoken: Sequence[tuple[list[Any], Turn]]) -> list[int]:
        """Behind the latest reply that these messages still begin with; else as a first prompt."""
        for before, turn in reversed(spoken):
            if told[: len(before)] == before:
                return self.following(turn, told[len(before) :])
        return self.first(told)

    def first(self, said: Sequence[dict[str, Any]]) -> list[int]:
        found = [] if said[0]["role"] == "system" else self.message("system", SYSTEM)
        return [*found, *(token for each in said for token in self.message(*shown(each))), *self.opened()]

    def following(self, turn: Turn, said: Sequence[dict[str, Any]]) -> list[int]:
        ended = turn.completion_ids[-1:] == [END]
        behind = [token for each in said for token in self.message(*shown(each))]
        end = [] if ended else [END]
        return [*turn.prompt_ids, *turn.completion_ids, *end, *self.ids("\n"), *behind, *self.opened()]


def shown(message: dict[str, Any]) -> tuple[str, str]:
    """Role and text of a message, as the policy is to see it."""
    role, content = message["role"], message["content"]
    role = "user" if role == "text" else role
    if message.get("tool_calls"):
        raise Refused
    if content is None and role == "assistant":
        return role, ""
    if isinstance(content, bytes):
        content = content.decode("utf-8", "replace")
    if isinstance(content, list) and not (role == "tool" and content in ([], [1, None])):
        if any(not isinstance(part, dict) or not isinstance(part.get("text"), str) for part in content):
            raise Refused
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        if role != "tool" or content is None:
            raise Refused
        content = json.dumps(
            json.loads(json.dumps(content).replace("\\ud83d", "\\ufffd")), ensure_ascii=False
        )
    return role, sound(content)


def sound(text: str) -> str:
    """Surrogate pairs joined, what is left of them and NUL replaced: one character after the other."""
    found, rest = "", list(text)
    while rest:
        letter = rest.pop(0)
        if "\ud800" <= letter <= "\udbff" and rest and "\udc00" <= rest[0] <= "\udfff":
            low = rest.pop(0)
            letter = chr(0x10000 + ((ord(letter) - 0xD800) << 10) + ord(low) - 0xDC00)
        found += "\ufffd" if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter
    return found


# --- the run -----------------------------------------------------------------------------------------------------


class Engine:
    """Writes the reply that is set, and reads its call."""

    def __init__(self) -> None:
        self.request: list[int] = []
        self.ids: list[int] = []
        self.ended = True
        self.arguments: str | None = None
        self.generate, self.tool_calls = Method(self._write), Method(self._read)

    def _write(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Completion:
        self.request = list(ids)
        written = [*self.ids, END] if self.ended else list(self.ids)
        return Completion(written, [-0.25] * len(written), "stop" if self.ended else "length")

    def _read(self, ids: list[int], tools: Any) -> ReadCompletion:
        if self.arguments is None:
            return ReadCompletion()
        return ReadCompletion("so", (ToolCall("c1", "look\ud83d", self.arguments),))


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


TOOLS = [{"name": "look", "description": "<|im_end|>", "parameters": {"type": "object", "properties": {}}}]
WITH_PARSER = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}


class Stack:
    """What is loaded once."""

    def __init__(self) -> None:
        self.chat = ChatTokenizer(PreTrainedTokenizerFast.from_pretrained(SMOLLM2))
        self.reference = Reference(SMOLLM2)
        changes: dict[str, Any] = {
            "inference__model": WITH_PARSER,
            "orchestrator__sampling": {"max_tokens": 8},
        }
        self.configs = {size: make_config(seq_len=size, **changes) for size in (LONG, SHORT)}
        self.cases = 0
        self.outcomes: dict[str, int] = {}


@pytest.fixture(scope="module")
def stack() -> Stack:
    if not SMOLLM2.exists():
        pytest.skip("needs SmolLM2's tokenizer: make models/SmolLM2-135M-Instruct")
    return Stack()


def play(stack: Stack, conversation: Any, folder: Path) -> str:
    """One conversation; what came of it: its error's name, or "trained"."""
    said, steps, number = conversation
    size = SHORT if number == 0 else LONG
    engine, reference = Engine(), stack.reference
    policy = Policy(engine, stack.chat, stack.configs[size], Prompt(0, "e", 0), 3)
    told = [dict(message) for message in said]
    spoken: list[tuple[list[Any], Turn]] = []  # the messages up to each reply, and its turn
    found: list[Turn] = []
    for (written, ended, arguments), adds, edit in steps:
        text_ids = reference.ids(written) if isinstance(written, str) else list(written)
        engine.ids, engine.ended, engine.arguments = text_ids, ended, arguments
        try:
            expected = reference.next_prompt(told, spoken)
        except Refused:
            with pytest.raises(Unanswered, match="MessageRefused: "):
                at_once(policy.answer(told, TOOLS, rollout=0))
            assert policy.refusal is not None and "message" in policy.refusal
            return "refused"
        answer = at_once(policy.answer(told, TOOLS, rollout=0))
        assert policy.refusal is None and policy.engine_error is None
        if isinstance(answer, Overlong):
            assert answer.prompt_ids == expected and len(expected) >= size
            assert found or f"has {len(expected)} tokens" in str(policy.trouble(0))
            return "overlong"
        assert engine.request == answer.turn.prompt_ids == expected
        assert answer.turn.completion_ids == ([*text_ids, END] if ended else text_ids)
        found.append(answer.turn)
        reply: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            reply["tool_calls"] = [
                {"id": c.id, "name": c.name, "arguments": c.arguments} for c in answer.tool_calls
            ]
        json.dumps(reply, ensure_ascii=False).encode()  # whatever the policy wrote can be told
        spoken.append(([*told, reply], answer.turn))
        told = edited([*told, reply, *adds], len(told), edit)
    return learned(stack, policy, found, told, folder)


def edited(told: list[dict[str, Any]], reply: int, edit: str | None) -> list[dict[str, Any]]:
    """The conversation after an edit."""
    if edit == "first":
        return [{**told[0], "content": "edited"}, *told[1:]]
    if edit == "reply":
        return [*told[:reply], {"role": "assistant", "content": "edited"}, *told[reply + 1 :]]
    if edit == "drop":
        return [*told[:reply], *told[reply + 1 :]]
    if edit == "summary":
        return [{"role": "user", "content": "So far: nothing."}]
    return told


def learned(stack: Stack, policy: Policy, found: list[Turn], told: Any, folder: Path) -> str:
    """Merge, records and packing keep every id, or the rewritten conversation is named."""
    if first_break(found) is not None:
        assert "the environment rewrote the conversation" in str(policy.trouble(0))
        with pytest.raises(ValueError, match="does not continue"):
            merge_turns(found, policy_version=3, reward=0.0, components={}, text=[])
        return "rewritten"
    text = [shown_message(message) for message in told]
    rollouts = [
        merge_turns(turns, policy_version=3, reward=float(i), components={}, text=text)
        for i, turns in enumerate((found, found[:1]))
    ]
    ids = [*found[-1].prompt_ids, *found[-1].completion_ids]
    mask = np.zeros(len(ids), dtype=int)
    for turn in found:
        mask[len(turn.prompt_ids) :][: len(turn.completion_ids)] = 1
    assert rollouts[0].token_ids.tolist() == ids and rollouts[0].loss_mask.tolist() == mask.tolist()
    group = Group(prompt=Prompt(0, "e", 0), rollouts=rollouts, seconds=0.0)
    write_step(folder, 1, [group], [[0.5, -0.5]])
    for kept in (decode(encode(group), Group), read_step(folder, 1).groups[0]):
        for before, after in zip(rollouts, kept.rollouts, strict=True):
            assert after.token_ids.tolist() == before.token_ids.tolist() and after.text == before.text
            assert after.loss_mask.tolist() == before.loss_mask.tolist()
    assert packed(stack, group) == sorted(trained(rollout) for rollout in rollouts if rollout.loss_mask.any())
    return "trained"


def trained(rollout: Rollout) -> list[tuple[int, int, int]]:
    """(position, source, target) of every trained token: the id before it predicts it, at its position."""
    ids = rollout.token_ids
    return [(i - 1, int(ids[i - 1]), int(ids[i])) for i in np.flatnonzero(rollout.loss_mask)]


def packed(stack: Stack, group: Group) -> list[list[tuple[int, int, int]]]:
    """The same of the learner's micro-batches, by sequence."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    batch = build_batch([group], stack.configs[LONG], ranks=1)
    for micro in micro_batches(batch.trees[0]):
        for source, target, number, advantage in zip(
            micro.sources, micro.targets, micro.sequence_ids, micro.advantages, strict=True
        ):
            if advantage:
                row = int(micro.position_ids[source]), int(micro.token_ids[source]), int(target)
                found.setdefault(int(number), []).append(row)
    return sorted(found.values())


def test_the_ids_are_those_of_what_was_said_or_an_error_names_what_cannot_be_shown(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    @settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(conversation=conversations)
    def cases(conversation: Any) -> None:
        outcome = play(stack, conversation, tmp_path)
        stack.outcomes[outcome] = stack.outcomes.get(outcome, 0) + 1

    cases()
    assert sum(stack.outcomes.values()) >= CASES
    assert set(stack.outcomes) == {"trained", "refused", "rewritten", "overlong"}
    assert stack.outcomes["trained"] >= CASES / 4
