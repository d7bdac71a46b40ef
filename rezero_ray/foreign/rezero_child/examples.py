"""What `rezero check` asks of an environment's examples: whether two are the same, and how one is solved."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

SOLUTION_FUNCTIONS = ("reference_transcript", "reference_answer")
"""Of an environment's module, from a task's `info` to its solution: a list of messages, or one message."""

TASK_COLUMNS = ("prompt", "answer", "info")


def solution_function(module: ModuleType) -> Callable[[Any], Any] | None:
    """The first of `SOLUTION_FUNCTIONS` that the module has."""
    return next((getattr(module, name) for name in SOLUTION_FUNCTIONS if hasattr(module, name)), None)


def solution_texts(module: ModuleType, info: Any) -> list[str] | None:
    """The messages that solve a task, None where the module does not say."""
    function = solution_function(module)
    if function is None:
        return None
    found = function(info)
    return [found] if isinstance(found, str) else list(found)


def described(train: Iterable[Mapping[str, Any]], held_out: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Digests of the prompts of both splits, one over all that their tasks hold, and how long training prompts are.

    `characters`: the shortest, the median and the longest.
    """
    splits = [
        [{name: task.get(name) for name in TASK_COLUMNS} for task in split] for split in (train, held_out)
    ]
    prompts = [[digest(task["prompt"]) for task in split] for split in splits]
    lengths = sorted(_characters(task["prompt"]) for task in splits[0]) or [0]
    return {
        "train": prompts[0],
        "held_out": prompts[1],
        "tasks": digest(splits),
        "characters": [lengths[0], lengths[len(lengths) // 2], lengths[-1]],
    }


def longest_prompts(prompts: Iterable[Any], most_bytes: int) -> list[Any]:
    """The prompts that are likely to have the most tokens first, as many as have `most_bytes` of UTF-8 together, and
    behind them one of every form (roles, types of content) that is not among them."""
    ranked = sorted(
        ((*_size(prompt), number, prompt) for number, prompt in enumerate(prompts)),
        key=lambda each: (-each[0], each[2]),
    )
    found: list[Any] = []
    forms: set[str] = set()
    total = 0
    for _, size, _, prompt in ranked:
        total += size
        form = _form(prompt)
        if not found or total <= most_bytes or form not in forms:
            found.append(prompt)
        forms.add(form)
    return found


def _form(value: Any) -> str:
    """What a prompt is made of, without its texts."""
    if isinstance(value, Mapping):
        return f"{{{value.get('role')} {value.get('type')} {_form(value.get('content'))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{''.join(sorted({_form(each) for each in value}))}]"
    return type(value).__name__


_WORD = re.compile("[A-Za-z]+")
_LONGEST_WORD = 12
"""Letters of a word that a tokenizer may know as one token."""


def _size(value: Any) -> tuple[float, int]:
    """Tokens that the texts of a prompt are likely to have in any tokenizer, rather too many, and their bytes.

    A word is a token, and so is every other byte that is no space: 300 emoji are more tokens than 1,000 letters.
    """
    if isinstance(value, str):
        words = [len(word) for word in _WORD.findall(value)]
        size = len(value.encode("utf-8", "replace"))
        inside = sum(1 if letters <= _LONGEST_WORD else letters / 2 for letters in words)
        return size - sum(words) - value.count(" ") + inside, size
    if isinstance(value, Mapping):
        value = list(value.values())
    parts = [_size(each) for each in value] if isinstance(value, (list, tuple)) else []
    return sum(tokens for tokens, _ in parts), sum(size for _, size in parts)


def _characters(prompt: Any) -> int:
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(str(message.get("content") or "")) for message in prompt)


def digest(value: Any) -> str:
    """Sixteen hex digits, the same for equal values in any process."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written_answer(parser: Any, answer: str) -> str:
    """An answer in the form in which the environment's parser reads it back: as it stands, in the parser's own XML
    fields, boxed, or either of them after a thought. As it stands where the parser reads none of these."""
    for form in _forms(parser, answer):
        try:
            read = parser.parse_answer(form)
        except Exception:  # foreign code, given a text that it may not expect
            continue
        if str(read).strip() == answer.strip():
            return form
    return answer


def _forms(parser: Any, answer: str) -> Iterator[str]:
    plain = [answer, f"\\boxed{{{answer}}}"]
    try:
        fields = dict.fromkeys(parser.get_fields(), "-") | {parser.answer_field: answer}
        plain.append(parser.format(**fields))
    except Exception:  # no XMLParser, or one that is built in another way
        pass
    yield from plain
    yield from (f"<think>\n-\n</think>\n{form}" for form in plain)
