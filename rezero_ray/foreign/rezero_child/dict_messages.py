"""For environments written when messages were dicts.

Since verifiers 0.1.11 reward functions get messages that answer `message["content"]` and are no dicts. Code that asks
`isinstance(message, dict)` takes them for nothing and scores a perfect answer 0, without an error.
"""

import ast
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_DICTS = {"dict", "Mapping", "MutableMapping"}


def as_dicts(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A reward function's arguments with the messages of `prompt`, `completion`, `prompts` and `completions` as
    plain dicts. `state` stays as it is."""
    plain = dict(arguments)
    for name in ("prompt", "completion"):
        if name in plain:
            plain[name] = _messages(plain[name])
        if f"{name}s" in plain:
            plain[f"{name}s"] = [_messages(each) for each in plain[f"{name}s"]]
    return plain


def _messages(messages: Any) -> Any:
    if not isinstance(messages, (list, tuple)):
        return messages
    return [
        message.model_dump(exclude_none=True) if hasattr(message, "model_dump") else message
        for message in messages
    ]


def tests_for_dicts(objects: Iterable[Any]) -> bool:
    """Whether the modules of these functions and classes ask for `dict` with isinstance, or compare types with it;
    verifiers' own modules do not count."""
    names = {str(getattr(each, "__module__", "")) for each in objects}
    modules = [sys.modules[name] for name in names if name in sys.modules]
    sources = {
        source
        for module in modules
        if module.__name__.partition(".")[0] not in ("verifiers", "builtins")
        and (source := inspect.getsourcefile(module)) is not None
    }
    return any(source_tests_for_dicts(Path(source).read_text("utf-8")) for source in sources)


def source_tests_for_dicts(text: str) -> bool:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return any(_asks_for_dict(node) for node in ast.walk(tree))


def _asks_for_dict(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        return len(node.args) == 2 and _names_dict(node.args[1])
    if isinstance(node, ast.Compare):
        return any(_names_dict(side) for side in node.comparators) and isinstance(node.left, ast.Call)
    return False


def _names_dict(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_names_dict(element) for element in node.elts)
    if isinstance(node, ast.Attribute):
        return node.attr in _DICTS
    return isinstance(node, ast.Name) and node.id in _DICTS
