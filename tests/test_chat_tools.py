"""Claims about `ChatTokenizer` where tools are called: SmolLM2's tokenizer, with the templates of other families cut
down to what is claimed about them."""

from typing import Any

import pytest
from jinja2 import TemplateError

from rezero_ray.chat import ChatTokenizer
from tests.record_builders import SMOLLM2

CHATML = """
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == "tool" %}
{%- if not loop.previtem or loop.previtem.role != "tool" %}<|im_start|>user
{% endif %}<tool_response>{{ m.content }}</tool_response>
{%- if loop.last or loop.nextitem.role != "tool" %}<|im_end|>
{% endif %}
{%- else %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}
{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""As Qwen and Hermes: answers of tools are one user's message together."""

STRICT = """
{%- for m in messages %}
{%- if m.role == "user" %}[INST]{{ m.content }}[/INST]
{%- elif m.role == "assistant" and m.tool_calls %}<|im_start|>[CALLS]
{%- for call in m.tool_calls %}{{ call.function | tojson }}#{{ call.id }}{% endfor %}<|im_end|>
{%- elif m.role == "assistant" %}{{ m.content }}<|im_end|>
{%- else %}
{%- set asked = namespace(name=none) %}
{%- for other in messages %}{% for call in other.tool_calls or [] %}
{%- if call.id == m.tool_call_id %}{% set asked.name = call.function.name %}{% endif %}
{%- endfor %}{% endfor %}
{%- if not asked.name %}{{ raise_exception("no tool was called") }}{% endif %}[RESULT {{ asked.name }} {{ m.name }}]
{{- m.content }}[/RESULT]
{%- endif %}
{%- endfor %}"""
"""As Mistral and gpt-oss: an answer of a tool needs its call, and a reply that calls has no text."""

ASK = [{"role": "user", "content": "Find it."}]
CALLS = [
    {"id": "c1", "name": "scan", "arguments": '{"line": 3}'},
    {"id": "c2", "type": "function", "function": {"name": "test", "arguments": "{}"}},
]
ANSWERS = [
    {"role": "tool", "tool_call_id": "c1", "content": "No findings."},
    {"role": "tool", "tool_call_id": "c2", "content": "rezero-end-of-reply: 2 of 3 pass."},
]
TOOL = {"name": "scan", "description": "Scans.", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    if not SMOLLM2.exists():
        pytest.skip("needs SmolLM2's tokenizer: make models/SmolLM2-135M-Instruct")
    return ChatTokenizer.load(str(SMOLLM2))._tokenizer


def with_template(tokenizer: Any, template: str, monkeypatch: pytest.MonkeyPatch) -> ChatTokenizer:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    return ChatTokenizer(tokenizer)


@pytest.mark.parametrize("template", [CHATML, STRICT], ids=["chatml", "strict"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("cut", [False, True], ids=["ended", "cut"])
def test_behind_a_reply_that_called_tools_stands_what_the_whole_conversation_has_there(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, count: int, cut: bool
) -> None:
    chat = with_template(tokenizer, template, monkeypatch)
    (end,) = chat.eos_ids
    calls, answers = CALLS[:count], ANSWERS[:count]
    reply = {"role": "assistant", "content": "", "tool_calls": calls}
    prompt = chat.prompt_ids(ASK)
    whole = chat.prompt_ids([*ASK, reply, *answers])
    first = whole.index(end, len(prompt))
    written = whole[len(prompt) : first + (not cut)]
    assert chat.next_prompt_ids(prompt, written, answers, calls) == whole


def test_the_ids_that_the_policy_wrote_stay_whatever_the_call_would_be_rendered_as(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = with_template(tokenizer, STRICT, monkeypatch)
    (end,) = chat.eos_ids
    prompt, written = chat.prompt_ids(ASK), [5, 6, 7, end]
    following = chat.next_prompt_ids(prompt, written, ANSWERS[:1], CALLS[:1])
    assert following[: len(prompt) + 4] == [*prompt, *written]
    assert chat.decode(following[len(prompt) + 4 :]) == "[RESULT scan scan]No findings.[/RESULT]"


def test_a_reply_that_was_cut_ends_where_the_template_ends_it_whatever_its_last_token_is(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last token may stand anywhere in what the template makes of the call."""
    chat = with_template(tokenizer, STRICT, monkeypatch)
    prompt = chat.prompt_ids(ASK)
    for last in set(tokenizer.encode('"}}#c1', add_special_tokens=False)):
        following = chat.next_prompt_ids(prompt, [last], ANSWERS[:1], CALLS[:1])
        assert following[len(prompt) + 1 :][:1] == list(chat.eos_ids)


def test_a_template_that_takes_one_call_at_a_time_goes_on_behind_several(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Llama 3.1's."""
    single = "{% for m in messages if m.tool_calls and m.tool_calls | length > 1 %}"
    single += "{{ raise_exception('single calls only') }}{% endfor %}"
    expected = with_template(tokenizer, CHATML, monkeypatch).next_prompt_ids([5], [6, 2], ANSWERS, CALLS)
    chat = with_template(tokenizer, single + CHATML, monkeypatch)
    assert chat.next_prompt_ids([5], [6, 2], ANSWERS, CALLS) == expected


def test_an_answer_that_the_template_refuses_is_an_error(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = with_template(tokenizer, STRICT, monkeypatch)
    with pytest.raises(TemplateError, match="no tool was called"):
        chat.next_prompt_ids(chat.prompt_ids(ASK), [5], ANSWERS[:1])


@pytest.mark.parametrize("tool", [TOOL, {"type": "function", "function": TOOL}], ids=["verifiers", "openai"])
def test_a_tool_of_either_form_is_told_to_the_policy_in_one(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tool: dict[str, Any]
) -> None:
    chat = with_template(tokenizer, CHATML, monkeypatch)
    text = chat.decode(chat.prompt_ids(ASK, [tool]))
    assert '{"type": "function", "function": {"name": "scan"' in text
