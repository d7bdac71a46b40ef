"""Claims about the plug-in: vLLM finds it wherever the sources are, and an engine without it does not start."""

import os
import shutil
import subprocess
import sysconfig
import venv
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rezero_ray.models import smollm2
from rezero_ray.models.tiny import make_tiny_llama
from rezero_ray.vllm_cpu import plugin

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / smollm2.DEFAULT_OUTPUT
ROOMS = ("rezero_ray", "actors", "infra", "environments")

START = """
import asyncio, os, sys
from pathlib import Path
from actors.rollout_engine import RolloutEngine
from rezero_ray.config import load_config
if __name__ == "__main__":
    os.environ["GOMP_SPINCOUNT"] = "2000"
    files = [Path(sys.argv[1], "configs", name) for name in ("phishing.toml", "overlays/cpu.toml")]
    config = load_config(files, ["--model.name", sys.argv[2]])
    engine = RolloutEngine.__ray_metadata__.modified_class(config, 0, "cpu")
    async def main():
        await engine.start()
        await engine.stop()
    try:
        asyncio.run(main())
    except RuntimeError as error:
        print("refused:", error, flush=True)
    os._exit(0)  # vLLM 0.30's threads sometimes abort an interpreter that ends by itself
"""


def test_the_path_of_a_process_has_the_plugin_once_and_keeps_what_was_there() -> None:
    once = plugin.python_path("/elsewhere")
    assert once.split(os.pathsep) == [str(plugin.ROOT), str(plugin.DISCOVERY), "/elsewhere"]
    assert plugin.python_path(once) == once
    assert plugin.python_path(None) == plugin.python_path("")


def test_the_folder_names_the_plugin_as_vllm_looks_for_it() -> None:
    from importlib.metadata import distributions

    (found,) = distributions(path=[str(plugin.DISCOVERY)])
    (entry,) = found.entry_points
    assert (entry.group, entry.name) == ("vllm.platform_plugins", plugin.NAME)
    assert entry.load() is plugin.register
    assert not [e for e in entry_points(group="vllm.general_plugins") if e.name == plugin.NAME]


@pytest.mark.parametrize(
    ("plugins", "wanted"),
    [(None, True), ("rezero_cpu", True), ("a,rezero_cpu", True), ("", False), ("a", False)],
)
def test_the_plugin_is_required_unless_the_user_leaves_it_out(plugins: str | None, wanted: bool) -> None:
    assert plugin.wanted({} if plugins is None else {"VLLM_PLUGINS": plugins}) == wanted


@pytest.fixture(scope="module")
def uninstalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with this one's packages but for the project, as in Modal's image or a submitted job."""
    folder = tmp_path_factory.mktemp("uninstalled")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = folder.glob("venv/lib/python3.*/site-packages")
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "rezero_ray" not in path.name and path.name != "__pycache__":
            (packages / path.name).symlink_to(path)
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "code" / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "start.py").write_text(START)
    found = subprocess.run(
        [folder / "venv/bin/python", "-c", "import rezero_ray"], cwd=folder, env={}, check=False
    )
    assert found.returncode != 0, "the project is installed there"
    return folder


def start_engine(folder: Path, model: Path) -> str:
    """What an engine says whose sources are the copy in `folder`, by PYTHONPATH alone."""
    done = subprocess.run(
        [str(folder / "venv/bin/python"), "start.py", str(ROOT), str(model)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "code"), "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_an_engine_from_copied_sources_uses_our_lora_operation_or_says_that_it_cannot(
    uninstalled: Path, tmp_path: Path
) -> None:
    model = make_tiny_llama(tmp_path / "model", tokenizer_from=TOKENIZER)
    assert "Using GroupedPunicaWrapper" in start_engine(uninstalled, model)

    shutil.rmtree(uninstalled / "code/rezero_ray/vllm_cpu/discovery")
    said = start_engine(uninstalled, model)
    assert "refused: vLLM runs on vllm.platforms.cpu.CpuPlatform" in said
    assert "discovery" in said
