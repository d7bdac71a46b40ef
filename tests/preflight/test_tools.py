"""Tools: the parser that reads their calls, and the template that tells the policy of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rezero_ray.config import ConfigError, load_config
from rezero_ray.preflight.environments import examine_prompts
from rezero_ray.preflight.tools import examine_parser, examine_tools, parser_names, renders_tools
from tests.config.run_request import write_right

PARSER = ["--inference.model.enable_auto_tool_choice=true", "--inference.model.tool_call_parser"]
TOOLS = [{"name": "look", "description": "", "parameters": {"type": "object", "properties": {}}}]


class Template:
    """A tokenizer whose template writes the tools or does not."""

    def __init__(self, *, tells: bool) -> None:
        self._tells = tells

    def apply_chat_template(self, messages: Any, *, tools: Any, **rest: Any) -> str:
        return f"{messages} {tools if self._tells else ''}"


def test_the_names_are_vllms_own_and_vllm_is_not_imported() -> None:
    assert {"hermes", "glm47", "openai"} <= set(parser_names())
    code = (
        "import sys; from rezero_ray.preflight.tools import parser_names; parser_names(); "
        "assert 'vllm' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow  # imports vLLM
def test_they_are_all_that_vllm_registers() -> None:
    from vllm.tool_parsers import ToolParserManager

    assert parser_names() == ToolParserManager.list_registered()


@pytest.mark.parametrize(
    ("name", "near"), [("hermez", "hermes"), ("glm4_7", "glm47"), ("qwen3-coder", "qwen3_coder")]
)
def test_a_parser_that_vllm_does_not_have_is_refused_with_the_nearest(
    tmp_path: Path, name: str, near: str
) -> None:
    config = load_config([write_right(tmp_path)], [*PARSER, name])
    (problem,) = examine_parser(config).problems
    assert problem.key == "inference.model.tool_call_parser" and problem.remedy.startswith(
        f'write "{near}"; it has'
    )


def test_no_parser_and_one_that_is_there_are_right(tmp_path: Path) -> None:
    right = write_right(tmp_path)
    assert not examine_parser(load_config([right], [])).problems
    assert not examine_parser(load_config([right], [*PARSER, "hermes"])).problems


def test_tools_without_a_parser_are_refused_and_with_one_are_right(tmp_path: Path) -> None:
    right = write_right(tmp_path)
    (problem,) = examine_tools(load_config([right], []), 0, TOOLS, Template(tells=True)).problems
    assert problem.key == "inference.model.tool_call_parser" and "offers tools (look)" in problem.what
    found = examine_tools(load_config([right], [*PARSER, "hermes"]), 0, TOOLS, Template(tells=True))
    assert not found.problems and not found.notes


def test_a_template_that_does_not_tell_of_tools_is_a_note(tmp_path: Path) -> None:
    config = load_config([write_right(tmp_path)], [*PARSER, "hermes"])
    found = examine_tools(config, 0, TOOLS, Template(tells=False))
    assert not found.problems and "does not tell the policy of them" in found.notes[0]
    assert renders_tools(Template(tells=True), TOOLS)


def test_an_environment_that_offers_tools_is_seen_when_it_is_built(tmp_path: Path) -> None:
    flags = ["--orchestrator.env.0.id=code-vulnerability", "--orchestrator.env.0.args.max_turns=3"]
    flags += ["--orchestrator.env.0.args.num_train=2", "--orchestrator.env.0.args.num_eval=1"]
    (problem,) = examine_prompts(load_config([write_right(tmp_path)], flags), None).problems
    assert "code-vulnerability offers tools (run_bandit, run_tests)" in problem.what


def test_a_limit_on_tools_that_are_not_there_is_refused(tmp_path: Path) -> None:
    flags = ["--orchestrator.env.0.id=phishing-detection", "--orchestrator.env.0.tool_timeout=5"]
    flags += ["--orchestrator.env.0.args.num_train=2", "--orchestrator.env.0.args.num_eval=1"]
    (problem,) = examine_prompts(load_config([write_right(tmp_path)], flags), None).problems
    assert "tool_timeout = 5, and a SingleTurnEnv has no tools" in problem.what


@pytest.mark.parametrize("name", ["timeout", "rollout_timeout", "tool_timeout", "score_timeout"])
def test_a_limit_beyond_the_groups_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as found:
        load_config([write_right(tmp_path)], [f"--orchestrator.env.0.{name}=60", "--limits.group=30"])
    assert [problem.key for problem in found.value.problems] == [f"orchestrator.env.0.{name}"]
