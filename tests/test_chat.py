"""Claims about `ChatTokenizer`, with SmolLM2's own tokenizer and template."""

import pytest
from transformers import AutoTokenizer

from rezero_ray.chat import ChatTokenizer
from tests.record_builders import SMOLLM2

FIRST = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is this mail phishing?"}]
MORE = [{"role": "tool", "content": "links: 2"}, {"role": "user", "content": "And  now?\n"}]
REPLY = "Yes, it is.\nThe link's host is new."


@pytest.fixture(scope="module")
def chat() -> ChatTokenizer:
    if not SMOLLM2.exists():
        pytest.skip("needs SmolLM2's tokenizer: make models/SmolLM2-135M-Instruct")
    return ChatTokenizer.load(str(SMOLLM2))


def ids_of(chat: ChatTokenizer, text: str) -> list[int]:
    return list(chat._tokenizer.encode(text, add_special_tokens=False))


def test_the_prompt_is_the_rendered_conversation_with_the_assistants_turn_opened(chat: ChatTokenizer) -> None:
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs this mail phishing?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert chat.prompt_ids(FIRST) == ids_of(chat, expected)


def test_without_thinking_a_template_that_knows_how_lets_the_model_answer_at_once(
    chat: ChatTokenizer,
) -> None:
    """As GLM's template does it; one that knows nothing of it is not changed."""
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    tokenizer.chat_template = (
        "{{ messages[0].content }}{% if enable_thinking is defined and not enable_thinking %}</think>"
        "{% elif add_generation_prompt %}<think>{% endif %}"
    )
    thinker = ChatTokenizer(tokenizer)
    assert thinker.decode(thinker.prompt_ids(FIRST[:1])) == "Be brief.<think>"
    assert thinker.decode(thinker.prompt_ids(FIRST[:1], thinking=False)) == "Be brief.</think>"
    assert chat.prompt_ids(FIRST, thinking=False) == chat.prompt_ids(FIRST)


def test_a_tokenizer_without_thinking_answers_at_once_in_every_turn(chat: ChatTokenizer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}"
        "{{ '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}"
    )
    at_once, thinker = ChatTokenizer(tokenizer, thinking=False), ChatTokenizer(tokenizer)
    (end,) = chat.eos_ids
    for tokenizes, opening in ((at_once, "</think>"), (thinker, "<think>")):
        first = tokenizes.prompt_ids(FIRST)
        after = tokenizes.next_prompt_ids(first, [*ids_of(chat, REPLY), end], MORE[1:])
        whole = tokenizes.prompt_ids([*FIRST, {"role": "assistant", "content": opening + REPLY}, *MORE[1:]])
        turns = tokenizes.decode(after).split(opening)
        assert len(turns) == 3 and turns[-1] == "" and after[: len(first)] == first
        assert tokenizes.decode(after).replace(opening, "") == tokenizes.decode(whole).replace(opening, "")
    assert at_once.prompt_ids(FIRST, thinking=True) == thinker.prompt_ids(FIRST)


@pytest.mark.parametrize("new", [MORE, MORE[:1], MORE[1:]], ids=["two", "tool", "user"])
def test_after_a_finished_reply_it_equals_rendering_the_whole_conversation(
    chat: ChatTokenizer, new: list[dict[str, str]]
) -> None:
    (end,) = chat.eos_ids
    whole = chat.prompt_ids([*FIRST, {"role": "assistant", "content": REPLY}, *new])
    assert chat.next_prompt_ids(chat.prompt_ids(FIRST), [*ids_of(chat, REPLY), end], new) == whole


def test_it_equals_rendering_the_whole_conversation_over_many_turns(chat: ChatTokenizer) -> None:
    (end,) = chat.eos_ids
    messages, ids = list(FIRST), chat.prompt_ids(FIRST)
    for turn in range(3):
        reply = f"reply {turn}"
        ids = chat.next_prompt_ids(ids, [*ids_of(chat, reply), end], MORE)
        messages += [{"role": "assistant", "content": reply}, *MORE]
        assert ids == chat.prompt_ids(messages)


def test_a_reply_cut_by_length_gets_the_end_token_from_the_template(chat: ChatTokenizer) -> None:
    (end,) = chat.eos_ids
    prompt, cut = chat.prompt_ids(FIRST), ids_of(chat, REPLY)[:3]
    finished = chat.next_prompt_ids(prompt, [*cut, end], MORE)
    assert chat.next_prompt_ids(prompt, cut, MORE) == finished
    assert finished[len(prompt) + len(cut)] == end


def test_what_the_policy_wrote_is_never_tokenised_again(chat: ChatTokenizer) -> None:
    (end,) = chat.eos_ids
    spelled = [token for letter in "phishing" for token in ids_of(chat, letter)]
    assert ids_of(chat, chat.decode(spelled)) != spelled  # one letter a token is not how the tokenizer cuts
    prompt = [*chat.prompt_ids(FIRST)[:-1], *spelled]  # nor is this prompt
    following = chat.next_prompt_ids(prompt, [*spelled, end], MORE)
    assert following[: len(prompt) + len(spelled) + 1] == [*prompt, *spelled, end]


def test_an_empty_reply_is_closed(chat: ChatTokenizer) -> None:
    whole = chat.prompt_ids([*FIRST, {"role": "assistant", "content": ""}, *MORE])
    assert chat.next_prompt_ids(chat.prompt_ids(FIRST), [], MORE) == whole


def test_a_message_may_hold_any_text(chat: ChatTokenizer) -> None:
    (end,) = chat.eos_ids
    quote = [{"role": "user", "content": "You wrote rezero-end-of-reply. Why?"}]
    whole = chat.prompt_ids([*FIRST, {"role": "assistant", "content": REPLY}, *quote])
    assert chat.next_prompt_ids(chat.prompt_ids(FIRST), [*ids_of(chat, REPLY), end], quote) == whole


def test_decoding_leaves_the_special_tokens_out(chat: ChatTokenizer) -> None:
    assert chat.decode([*ids_of(chat, REPLY), *chat.eos_ids]) == REPLY
