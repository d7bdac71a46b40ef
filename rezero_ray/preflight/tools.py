"""Environments that offer tools: can the policy be told of them, and can its calls be read?"""

import ast
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rezero_ray.chat import tool_record
from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.findings import Findings

_REGISTRY = "_TOOL_PARSERS_TO_REGISTER"


def parser_names() -> list[str]:
    """The parsers that the installed vLLM registers, read from its source: importing it takes ten seconds. Empty
    where vLLM is not installed or keeps them elsewhere; the engine then tells when it starts."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return []
    source = Path(next(iter(spec.submodule_search_locations))) / "tool_parsers" / "__init__.py"
    try:
        body = ast.parse(source.read_text("utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return []
    tables = [
        node.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id == _REGISTRY
    ]
    keys = [key for table in tables for key in table.keys]
    return sorted(key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def examine_parser(config: Config) -> Findings:
    """Does vLLM have the parser that the config names?"""
    name, names = config.inference.model.tool_call_parser, parser_names()
    if name is None or not names or name in names:
        return Findings()
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    remedy = f'write "{close[0]}"; ' if close else ""
    return Findings(
        [
            Problem(
                "inference.model.tool_call_parser",
                "vLLM has no such parser of tool calls",
                f"{remedy}it has {', '.join(names)}",
                shown(name),
            )
        ]
    )


def examine_tools(config: Config, index: int, tools: Sequence[Mapping[str, Any]], tokenizer: Any) -> Findings:
    """What becomes of the tools that an environment offers.

    Args:
        tokenizer: the model's; None where it is not here.
    """
    found = Findings()
    if not tools:
        return found
    name = config.orchestrator.env[index].name
    names = [tool_record(tool)["function"]["name"] for tool in tools]
    if config.inference.model.tool_call_parser is None:
        found.problems.append(
            Problem(
                "inference.model.tool_call_parser",
                f"{name} offers tools ({', '.join(names)}), and nothing reads the policy's calls of them",
                'add tool_call_parser = "hermes" (or the parser of your model) and enable_auto_tool_choice = true',
                others=(f"orchestrator.env.{index}.id",),
            )
        )
    if tokenizer is not None and not renders_tools(tokenizer, tools):
        found.notes.append(
            f"{name} offers tools ({', '.join(names)}), and the chat template of {config.model.name} does not tell "
            "the policy of them: it will hardly call one"
        )
    return found


def renders_tools(tokenizer: Any, tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the chat template writes the names of the tools into a prompt."""
    records = [tool_record(tool) for tool in tools]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "-"}], tools=records, add_generation_prompt=True, tokenize=False
    )
    return all(record["function"]["name"] in text for record in records)
