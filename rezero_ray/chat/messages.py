"""Messages as a chat template reads them, made of whatever an environment, a tool or a data set says. Pure.

The preflight and the run build their messages with `policy_messages` and nothing else. A message is preserved exactly
or refused with the reason. What no tokenizer and no JSON takes (half of a surrogate pair, NUL, bytes that are not
UTF-8) becomes U+FFFD, which everybody can see.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

DEEPEST = 64
"""Levels of nesting that a message may have. JSON, templates and records recurse, and Python allows about 1,000."""

_UNENCODABLE = re.compile("[\0\ud800-\udfff]")
_TEXT_PARTS = ("text", "input_text", "output_text")


class MessageRefused(ValueError):
    """What an environment says cannot be shown to the policy as it is. The text says what and why."""


def policy_messages(prompt: Any) -> list[Message]:
    """The messages of a prompt or a conversation, as the policy sees them.

    A bare text is a user's message, and so is a message of the role `text`. Text parts are joined without anything
    between them; the result of a tool that is no text is its JSON. Keys whose value is None are left out.

    Raises:
        MessageRefused: there is no message, or one holds what the policy cannot be shown.
    """
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, Mapping) or not isinstance(prompt, Sequence):
        raise MessageRefused(f"a conversation is a list of messages, not {_kind(prompt)}")
    if not prompt:
        raise MessageRefused("the conversation has no message")
    return [_message(number, message) for number, message in enumerate(prompt)]


def policy_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Tools in the form of the chat completions API.

    Raises:
        MessageRefused: one of them has no name.
    """
    found = []
    for tool in tools or ():
        record = cleaned(tool_record(tool))
        if not isinstance(record["function"], Mapping) or not isinstance(record["function"].get("name"), str):
            raise MessageRefused("a tool that the environment offers has no name")
        found.append(record)
    return found


def clean_text(text: str) -> str:
    """`text` with U+FFFD for each NUL and each half of a surrogate pair that has lost its other half."""
    if text.isascii() and "\0" not in text:
        return text
    if _UNENCODABLE.search(text) is None:
        return text
    paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return paired.replace("\0", "\ufffd")


def unencodable(value: Any) -> bool:
    """Whether a text in a prompt, whatever its form, holds what `clean_text` replaces."""
    if isinstance(value, str):
        return clean_text(value) != value
    if isinstance(value, Mapping):
        return any(unencodable(each) for each in value.values())
    return isinstance(value, (list, tuple)) and any(unencodable(each) for each in value)


def cleaned(value: Any, *, depth: int = 0) -> Any:
    """A value of texts, lists and mappings with every text in it cleaned, keys included.

    Raises:
        MessageRefused: it is nested deeper than `DEEPEST`.
    """
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bytes):
        return clean_text(value.decode("utf-8", "replace"))
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if depth == DEEPEST:
        raise MessageRefused(f"it is nested deeper than {DEEPEST} levels")
    if isinstance(value, Mapping):
        return {cleaned(key, depth=depth + 1): cleaned(each, depth=depth + 1) for key, each in value.items()}
    return [cleaned(each, depth=depth + 1) for each in value]


def clean_arguments(arguments: str) -> str:
    """Arguments of a tool call, cleaned as they are written and as they are read: JSON may spell what no text may
    hold. Those that are no JSON, or are nested too deep, stay the text that the policy wrote."""
    text = clean_text(arguments)
    if "\\u" not in text:
        return text
    try:
        read = json.loads(text)
        clean = cleaned(read)
    except (ValueError, RecursionError):
        return text
    return text if clean == read else json.dumps(clean, ensure_ascii=False)


def _message(number: int, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise MessageRefused(f"message {number} is {_kind(message)}, not a message with a role and content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise MessageRefused(f"message {number} has no role")
    role = clean_text("user" if role == "text" else role)
    named = f"message {number} ({role})"
    rest = {key: value for key, value in message.items() if value is not None and key not in _OWN}
    try:
        record = {"role": role, "content": _content(role, message.get("content")), **cleaned(rest)}
    except MessageRefused as problem:
        raise MessageRefused(f"{named}: {problem}") from None
    for call in record.get("tool_calls") or ():
        if not isinstance(call, Mapping) or not isinstance(_function(call).get("name"), str):
            raise MessageRefused(f"{named}: a call of a tool without a name")
    return record


_OWN = ("role", "content")


def _content(role: str, content: Any) -> str:
    if isinstance(content, (str, bytes)):
        return str(cleaned(content))
    if content is None and role == "assistant":
        return ""
    if isinstance(content, (list, tuple)) and (role != "tool" or _are_parts(content)):
        return clean_text("".join(_part(part) for part in content))
    if role == "tool" and content is not None:
        try:
            return clean_text(json.dumps(cleaned(content), ensure_ascii=False))
        except (TypeError, ValueError) as problem:
            raise MessageRefused(f"its content is {_kind(content)} and no JSON: {problem}") from None
    raise MessageRefused(f"its content is {_kind(content)}; write a text, or a list of text parts")


def _are_parts(content: Sequence[Any]) -> bool:
    """Whether a list that a tool returned is content, and no list of its own; an empty one is a list."""
    typed = [isinstance(part, Mapping) and isinstance(part.get("type"), str) for part in content]
    return bool(typed) and all(typed)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind not in _TEXT_PARTS:
        raise MessageRefused(f"it holds a part of type {kind!r}, and the policy reads text alone")
    text = part.get("text")
    if not isinstance(text, str):
        raise MessageRefused(f"it holds a text part whose text is {_kind(text)}")
    return text


def shown_text(content: Any) -> str:
    """A message's content for people: texts as they are, the type of any other part in brackets. Never raises."""
    if isinstance(content, (list, tuple)):
        return clean_text("".join(map(_shown_part, content)))
    return "" if content is None else clean_text(str(content))


def _shown_part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    return part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type', 'part')}]"


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def tool_record(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in the form of the chat completions API, which templates and parsers read; verifiers since 0.1.11 has
    the function alone."""
    if "function" in tool:
        return dict(tool)
    function = {name: tool[name] for name in ("name", "description", "parameters") if name in tool}
    return {"type": "function", "function": function}


def call_record(call: Mapping[str, Any]) -> dict[str, Any]:
    """`id`, `name` and `arguments` of a tool call in either form; the arguments are an object where they are JSON of
    one that is not nested too deep."""
    function = _function(call)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            read = cleaned(json.loads(arguments))
        except (ValueError, RecursionError):
            read = None
        arguments = read if isinstance(read, dict) else {"text": arguments}
    return {"id": call.get("id"), "name": function["name"], "arguments": arguments or {}}


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function", call)
    return function if isinstance(function, Mapping) else {}


def template_messages(messages: Sequence[Message]) -> list[Message]:
    """Messages as chat templates read them: calls with their arguments as objects, answers of tools with the tool's
    name."""
    names: dict[Any, str] = {}
    found = []
    for message in messages:
        calls = [call_record(call) for call in message.get("tool_calls") or []]
        names |= {call["id"]: call["name"] for call in calls}
        if calls:
            functions = [{key: call[key] for key in ("name", "arguments")} for call in calls]
            message = message | {
                "tool_calls": [
                    {"id": call["id"], "type": "function", "function": function}
                    for call, function in zip(calls, functions, strict=True)
                ]
            }
        elif message["role"] == "tool" and message.get("tool_call_id") in names:
            message = {"name": names[message["tool_call_id"]]} | message
        found.append(message)
    return found
