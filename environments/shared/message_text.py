"""Reading the text of chat messages, whatever their type.

Depending on the version and the caller, `verifiers` hands over messages as dicts or as pydantic objects,
with content that is a string, nothing, or a list of parts. Every function here is total: it returns text
for whatever it is given, and never raises.
"""

from collections.abc import Iterable, Mapping


def _field(message: object, name: str) -> object:
    if isinstance(message, Mapping):
        return message.get(name)
    return getattr(message, name, None)


def role_of(message: object) -> str:
    """The role of a message, or an empty string when it has none."""
    role = _field(message, "role")
    return role if isinstance(role, str) else ""


def text_of(message: object) -> str:
    """The text of a message, a bare string, or a content part; parts are joined, non-text is left out."""
    if isinstance(message, str):
        return message
    content = _field(message, "content")
    if content is None:
        content = _field(message, "text")
    if isinstance(content, str):
        return content
    if isinstance(content, Iterable) and not isinstance(content, Mapping | bytes):
        return "".join(text_of(part) for part in content)
    return ""


def assistant_texts(completion: object) -> list[str]:
    """Texts of the assistant's messages in order; a bare string counts as one message."""
    if isinstance(completion, str):
        return [completion]
    if completion is None or not isinstance(completion, Iterable):
        return []
    return [text_of(message) for message in completion if role_of(message) == "assistant"]


def message_reply_pairs(completion: object) -> list[tuple[str, str]]:
    """Each text of the assistant with that of the user's message behind it, empty where there is none."""
    if isinstance(completion, str):
        return [(completion, "")]
    if completion is None or not isinstance(completion, Iterable):
        return []
    pairs: list[tuple[str, str]] = []
    for message in completion:
        if role_of(message) == "assistant":
            pairs.append((text_of(message), ""))
        elif role_of(message) == "user" and pairs:
            pairs[-1] = (pairs[-1][0], text_of(message))
    return pairs


def last_assistant_text(completion: object) -> str:
    """Text of the assistant's last message, or an empty string."""
    texts = assistant_texts(completion)
    return texts[-1] if texts else ""
