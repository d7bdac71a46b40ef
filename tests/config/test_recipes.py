"""The recipes and overlays of configs/ are right requests, and the page about the keys is current."""

import tomllib
from pathlib import Path

import pytest

from rezero_ray import train
from rezero_ray.config import load_config
from rezero_ray.config.keys import all_keys
from rezero_ray.config.reference import PAGE, page

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
OVERLAYS = sorted((ROOT / "configs/overlays").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_glm_on_one_and_three_gpus_with_a_built_in_environment(recipe: Path) -> None:
    config = load_config([recipe])
    assert config.model.name == "zai-org/GLM-4.7-Flash"
    assert (config.inference_gpu_ids, config.trainer_gpu_ids) == ([0], [1, 2, 3])
    assert "/" not in config.orchestrator.env[0].id


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_overlay_goes_over_every_recipe(recipe: Path, overlay: Path) -> None:
    assert load_config([recipe, overlay])
    assert load_config([recipe, overlay], ["--max_steps", "1"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_dry_run_on_a_laptop_plans_the_recipe_and_leaves_no_file(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main([str(recipe), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert tomllib.loads(printed)["model"]["name"] == "zai-org/GLM-4.7-Flash"
    assert "rollouts a step: 512 (128 prompts x 4)" in printed
    assert "adapter: 9,818,112 parameters, 19.6 MB" in printed
    assert not list(tmp_path.iterdir())


def test_the_page_about_the_keys_is_current() -> None:
    assert (ROOT / PAGE).read_text("utf-8") == page(), "run python -m rezero_ray.config.reference"


def test_the_page_names_every_key() -> None:
    text = page()
    missing = [key for key in all_keys() if f"`{key.rpartition('.')[2]}`" not in text]
    headings = [key for key in missing if f"## `[{key}]`" in text or f"## `[[{key}]]`" in text]
    assert missing == [*headings, *(key for key in missing if key == "trainer.loss.type")]
