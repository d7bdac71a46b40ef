"""Claims about tool calls, read by vLLM's own parsers out of completions that were written for the test: SmolLM2
hardly writes one. The worker and the environment are the real ones."""

import asyncio
from typing import Any

import numpy as np
import pytest

from actors.environment_worker import EnvironmentWorker
from actors.rollout_engine import Completion
from actors.tool_calls import ReadCompletion, ToolCallReader
from rezero_ray.chat import ChatTokenizer
from rezero_ray.codec import decode
from rezero_ray.records import Group, Prompt
from rezero_ray.schedule import Send
from tests.actors.calling_engine import Method
from tests.record_builders import SMOLLM2, make_config
from tests.test_chat_tools import CHATML

pytestmark = pytest.mark.slow  # imports vLLM

TOOLS = [
    {"type": "function", "function": {"name": "scan", "parameters": {"type": "object", "properties": {}}}}
]
GLM_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    if not SMOLLM2.exists():
        pytest.skip("needs SmolLM2's tokenizer: make models/SmolLM2-135M-Instruct")
    return ChatTokenizer.load(str(SMOLLM2))._tokenizer


def read(tokenizer: Any, text: str, parser: str = "hermes") -> ReadCompletion:
    return ToolCallReader(parser, tokenizer).read(tokenizer.encode(text, add_special_tokens=False), TOOLS)


def test_calls_are_taken_out_of_the_text(tokenizer: Any) -> None:
    one = '<tool_call>\n{"name": "scan", "arguments": {"line": 3}}\n</tool_call>'
    found = read(tokenizer, f"Let me see. {one}{one}")
    assert [(call.name, call.arguments) for call in found.calls] == [("scan", '{"line": 3}')] * 2
    assert found.text == "Let me see. " and len({call.id for call in found.calls}) == 2
    glm = "<think>so</think>Now.<tool_call>scan<arg_key>line</arg_key><arg_value>3</arg_value></tool_call>"
    (call,) = read(tokenizer, glm, "glm47").calls
    assert (call.name, call.arguments) == ("scan", '{"line": "3"}')


@pytest.mark.parametrize(
    "text",
    [
        "No findings.",
        '<tool_call>{"name": "scan", "argum',
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        "<tool_call></tool_call><tool_call>",
        "",
    ],
)
def test_what_cannot_be_read_has_no_calls(tokenizer: Any, text: str) -> None:
    found = read(tokenizer, text)
    assert not found.calls and found.refused is None


def test_tools_that_are_none_are_told_and_so_is_a_parser_that_does_not_fit(tokenizer: Any) -> None:
    assert "Field required" in str(
        ToolCallReader("hermes", tokenizer).read([5], [{"type": "function"}]).refused
    )
    for parser in ("nobody_wrote_this", "openai", "llama3_json"):
        with pytest.raises(ValueError, match=f"tool_call_parser '{parser}' does not work with this model"):
            ToolCallReader(parser, tokenizer)


class WritingEngine:
    """Answers with the texts that it is given, one a turn, and reads them as the engine's actor does."""

    def __init__(self, tokenizer: Any, texts: list[str]) -> None:
        self._tokenizer, self._reader = tokenizer, ToolCallReader("hermes", tokenizer)
        self._texts = texts
        self.requests: list[list[int]] = []
        self.generate, self.tool_calls = Method(self._write), Method(self._read)

    def _write(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Completion:
        self.requests.append(ids)
        turn = len({len(earlier) for earlier in self.requests if len(earlier) < len(ids)})
        written = self._tokenizer.encode(
            self._texts[min(turn, len(self._texts) - 1)], add_special_tokens=False
        )
        written.append(self._tokenizer.eos_token_id)
        return Completion(token_ids=written, logprobs=[-0.5] * len(written), finish_reason="stop")

    def _read(self, ids: list[int], tools: Any) -> ReadCompletion:
        return self._reader.read(ids, tools)


def test_a_conversation_with_code_vulnerabilitys_tools_is_one_sequence_of_the_engines_ids(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = (
        '<tool_call>{"name": "run_bandit", "arguments": {"answer": "CWE-78 line 1\\n    pass"}}</tool_call>'
    )
    texts = [f"First both. {call}{call}", '<tool_call>{"name": "run_tests", "argum', "never asked"]
    config = make_config(
        model__name=str(SMOLLM2),
        seq_len=4096,
        limits__group=60.0,
        inference__model={"enable_auto_tool_choice": True, "tool_call_parser": "hermes"},
        orchestrator__env=[
            {"id": "code-vulnerability", "args": {"num_train": 3, "num_eval": 1, "max_turns": 4}}
        ],
    )
    worker = EnvironmentWorker.__ray_metadata__.modified_class(config, config.orchestrator.env[0])
    monkeypatch.setattr(worker._chat._tokenizer, "chat_template", CHATML)
    engine = WritingEngine(tokenizer, texts)
    send = Send(Prompt(index=3, environment="code-vulnerability", example=1), engine=0, version=7, attempt=1)
    group = decode(asyncio.run(worker.run_group(send, engine)), Group)
    for rollout in group.rollouts:
        assert rollout.turns == 2 and rollout.components["run_bandit_calls"] == 2
        assert [message["role"] for message in rollout.text] == ["assistant", "tool", "tool", "assistant"]
        assert "run_bandit(" in rollout.text[0]["content"] and rollout.text[3]["content"] == texts[1]
        trained = np.split(
            rollout.token_ids[rollout.loss_mask == 1],
            np.flatnonzero(rollout.token_ids[rollout.loss_mask == 1] == tokenizer.eos_token_id)[:-1] + 1,
        )
        assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in trained] == texts[:2]
        between = rollout.token_ids[rollout.prompt_length :][rollout.loss_mask[rollout.prompt_length :] == 0]
        assert tokenizer.decode(between).count("<tool_response>") == 2
    assert "run_tests" in tokenizer.decode(engine.requests[0])
