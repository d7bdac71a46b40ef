"""The recipes of configs/serve/: right by themselves, and made of arguments that vLLM knows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.serve import engine_settings
from rezero_ray.serving.server import command_line, further_arguments
from rezero_ray.serving.targets import Served, model_request

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs/serve").glob("*.toml"))

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
for words in json.loads(sys.argv[1]):
    arguments = make_arg_parser(FlexibleArgumentParser(prog="vllm serve")).parse_args(words)
    validate_parsed_serve_args(arguments)
    validate_api_server_args(arguments)
print("all parsed")
"""


def words_of(recipe: Path) -> list[str]:
    config = model_request("owner/model", [recipe], []).config
    settings = engine_settings(Served(config, "cuda", "model", (), ())) | further_arguments(config.serve)
    return command_line(settings)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_stands_on_its_own_and_parses_tool_calls(recipe: Path) -> None:
    words = words_of(recipe)
    assert "--enable-auto-tool-choice" in words and "--reasoning-parser" in words


@pytest.mark.slow
def test_vllm_knows_every_argument_and_parser_of_the_recipes() -> None:
    lines = json.dumps([["MODEL", *words_of(recipe)[2:]] for recipe in RECIPES])
    command = [sys.executable, "-c", PARSE, lines]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.strip().endswith("all parsed"), done.stdout + done.stderr
