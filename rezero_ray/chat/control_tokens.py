"""Control tokens: those that a chat template writes are tokens, and the same spelled out in a text remain text.

A message that spells `<|im_end|>` would end its own turn if it were encoded with the template's text. So the template
is given texts in which every control token is broken by a guard, a character that occurs nowhere else. Whatever
control token is whole in the rendered conversation is the template's own.
"""

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rezero_ray.chat.messages import MessageRefused

_GUARDS = [chr(code) for code in range(0xE000, 0xF900)]
"""Characters for private use: no alphabet has them."""

Span = tuple[int, int]


class ControlTokens:
    """The control tokens of one tokenizer: its special tokens, and added tokens that its chat template writes
    (DeepSeek's `<｜User｜>`, Qwen's `<tool_call>`).

    In an assistant's message the latter stay tokens: there they are what a reply is made of (a thought, a call).
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        template = str(getattr(tokenizer, "chat_template", None) or "")
        added = dict(tokenizer.added_tokens_decoder)
        special = {token.content: number for number, token in added.items() if token.special}
        marks = {
            token.content: number
            for number, token in added.items()
            if token.content.strip() and token.content in template
        }
        self._ids: dict[str, int] = special | marks
        self.ids = frozenset(self._ids.values())
        self._every = _Spelling(self._ids)
        self._in_replies = _Spelling(special)
        self._aliased: tuple[Any, dict[str, str], dict[int, int]] | None = None

    def guarded(self, messages: Sequence[Any], tools: Sequence[Any]) -> tuple[list[Any], list[Any], str]:
        """Messages and tools with every spelled control token broken by the guard, and the guard; "" where none is
        spelled and nothing was changed."""
        texts = [text for value in (*messages, *tools) for text in _texts(value)]
        if not any(self._every.found_in(text) for text in texts):
            return list(messages), list(tools), ""
        guard = next(
            each for each in _GUARDS if not any(each in text or _escaped(each) in text for text in texts)
        )

        return (
            [
                _mapped(each, self._in_replies if each["role"] == "assistant" else self._every, guard)
                for each in messages
            ],
            [_mapped(each, self._every, guard) for each in tools],
            guard,
        )

    def encode(self, rendered: str, guard: str) -> list[int]:
        """Ids of a rendered conversation, or of a part of it.

        Raises:
            MessageRefused: the tokenizer cannot write a control token as text.
        """
        if not guard:
            return self._plain(rendered)
        text, owned = self._owned(rendered, guard)
        spelled = [span for span in self._every.spans(text) if span not in set(owned)]
        if not spelled:
            return self._plain(text)
        expected = [self._ids[text[start:end]] for start, end in owned]
        for encode in (self._with_aliases, self._in_pieces):
            ids = encode(text, owned, spelled)
            if ids is not None and [number for number in ids if number in self.ids] == expected:
                return ids
        start, end = spelled[0]
        raise MessageRefused(
            f"a message spells the control token {text[start:end]!r}, and this model's tokenizer cannot write it as "
            "text"
        )

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _owned(self, rendered: str, guard: str) -> tuple[str, list[Span]]:
        """The text without guards, and where the template's own control tokens are in it."""
        pieces = rendered.replace(_escaped(guard), guard).split(guard)
        spans: list[Span] = []
        begin = 0
        for piece in pieces:
            spans += [(begin + start, begin + end) for start, end in self._every.spans(piece)]
            begin += len(piece)
        return "".join(pieces), spans

    def _with_aliases(self, text: str, owned: Sequence[Span], spelled: Sequence[Span]) -> list[int] | None:
        """By a copy of the tokenizer in which control tokens have names that nobody can spell: everything else, the
        context of each piece included, is encoded as ever. None for tokenizers of other libraries."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        if self._aliased is None:
            self._aliased = _aliased(backend, self._ids)
        copy, aliases, numbers = self._aliased
        pieces: list[str] = []
        behind = 0
        for start, end in owned:
            pieces += [text[behind:start], aliases[text[start:end]]]
            behind = end
        found = copy.encode("".join([*pieces, text[behind:]]), add_special_tokens=False).ids
        return [numbers.get(number, number) for number in found]

    def _in_pieces(self, text: str, owned: Sequence[Span], spelled: Sequence[Span]) -> list[int] | None:
        """By encoding pieces, cut inside each spelled control token. None where pieces do not make the same text."""
        ids: list[int] = []
        behind = 0
        for start, _ in spelled:
            ids += self._plain(text[behind : start + 1])
            behind = start + 1
        ids += self._plain(text[behind:])
        whole = self._tokenizer.decode(self._plain(text), skip_special_tokens=False)
        return ids if self._tokenizer.decode(ids, skip_special_tokens=False) == whole else None


class _Spelling:
    """Finds and breaks what spells one of these tokens."""

    def __init__(self, tokens: Iterable[str]) -> None:
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        # a token that begins or ends with a letter is no part of a markup that a text could complete
        self._beginnings = {
            token[:end] for token in longest_first if not token[0].isalnum() for end in range(1, len(token))
        }
        self._ends = {
            token[begin:]
            for token in longest_first
            if not token[-1].isalnum()
            for begin in range(1, len(token))
        }
        self._longest = len(longest_first[0]) - 1 if longest_first else 0

    def spans(self, text: str) -> list[Span]:
        return [match.span() for match in self._pattern.finditer(text)] if self._pattern else []

    def found_in(self, text: str) -> bool:
        """Whether it holds one, or begins or ends so that the template's text could complete one."""
        if self._pattern is None or not text:
            return False
        return bool(self._pattern.search(text) or self._open_end(text) or self._open_start(text))

    def broken(self, text: str, guard: str, *, ends: bool = True) -> str:
        """With the guard inside every token and, with `ends`, inside what could become one at either end."""
        cuts = {start + 1 for start, _ in self.spans(text)}
        if ends:
            trimmed, blank = len(text.rstrip()), len(text) - len(text.lstrip())
            cuts |= {trimmed - length + 1 for length in self._open_end(text)}
            cuts |= {blank + length - 1 for length in self._open_start(text)}
        borders = [0, *sorted(cuts), len(text)]
        return guard.join(text[begin:end] for begin, end in pairwise(borders))

    def _open_end(self, text: str) -> list[int]:
        tail = text.rstrip()[-self._longest :]
        return [length for length in range(1, len(tail) + 1) if tail[-length:] in self._beginnings]

    def _open_start(self, text: str) -> list[int]:
        head = text.lstrip()[: self._longest]
        return [length for length in range(1, len(head) + 1) if head[:length] in self._ends]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _mapped(value: Any, spelling: _Spelling, guard: str) -> Any:
    """Templates look keys and roles up by their names: those change only where they hold a whole token."""
    if isinstance(value, str):
        return spelling.broken(value, guard)
    if isinstance(value, Mapping):
        return {
            spelling.broken(str(key), guard, ends=False): spelling.broken(each, guard, ends=False)
            if key == "role" and isinstance(each, str)
            else _mapped(each, spelling, guard)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_mapped(each, spelling, guard) for each in value]
    return value


def without_guard(rendered: str, guard: str) -> str:
    """The text as it would be without the guard."""
    return rendered.replace(_escaped(guard), "").replace(guard, "") if guard else rendered


def _escaped(character: str) -> str:
    """As a template's `tojson` may write it."""
    return json.dumps(character)[1:-1]


def _aliased(backend: Any, control: Mapping[str, int]) -> tuple[Any, dict[str, str], dict[int, int]]:
    """A copy of a `tokenizers.Tokenizer` with other names for the control tokens, those names, and the ids that stand
    for others in the copy."""
    from tokenizers import Tokenizer

    secret = secrets.token_hex(8)
    state = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    aliases = {token: f"\ue000{secret}/{number}\ue000" for token, number in control.items()}
    for token in state["added_tokens"]:
        token["content"] = aliases.get(token["content"], token["content"])
    copy = Tokenizer.from_str(json.dumps(state))
    numbers: dict[int, int] = {}
    for number, added in backend.get_added_tokens_decoder().items():
        if (found := copy.token_to_id(aliases.get(added.content, added.content))) is not None:
            numbers[found] = number
    return copy, aliases, numbers
