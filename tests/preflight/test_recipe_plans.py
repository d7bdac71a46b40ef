"""Every recipe under every overlay, alone and stacked as in docs/recipes.md, is planned for its machine and fits."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from rezero_ray import train
from rezero_ray.config import Config, load_config
from rezero_ray.plan import Plan, make_plan, render_plan
from rezero_ray.preflight import Machine, ModelFacts
from rezero_ray.preflight.memory import GIB
from rezero_ray.preflight.model_facts import find_model
from tests.record_builders import SMOLLM2

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))
OVERLAYS = sorted(path.stem for path in (ROOT / "configs/overlays").glob("*.toml"))

FOUR_H100 = Machine(gpu_gib=(79.0,) * 4, cpus=32, memory_gib=256.0, shm_gib=16.0)
ONE_H200 = Machine(gpu_gib=(140.0,), cpus=16, memory_gib=128.0, shm_gib=16.0)
ONE_L4 = Machine(gpu_gib=(22.0,), cpus=4, memory_gib=16.0, shm_gib=16.0)
TWO_CORES = Machine(gpu_gib=(), cpus=2, memory_gib=24.0, shm_gib=8.0)

MACHINES = {
    "local-4gpu": FOUR_H100,
    "eval local-4gpu": FOUR_H100,
    "nemotron-3-nano local-4gpu": FOUR_H100,
    "modal": FOUR_H100,
    "nemotron-3-nano modal": FOUR_H100,
    "local-1gpu": ONE_H200,
    "nemotron-3-nano local-1gpu": ONE_H200,
    "modal-l4": ONE_L4,
    "modal-l4 smoke": ONE_L4,
    "local-4gpu smoke": FOUR_H100,
    "modal smoke": FOUR_H100,
    "nemotron-3-nano local-4gpu smoke": FOUR_H100,
    "cpu": TWO_CORES,
    "cpu smoke": TWO_CORES,
    "cpu demo": TWO_CORES,
    "cpu registries": TWO_CORES,
}
"""Overlays, in their order, and what they are for."""


def stacked(recipe: str, overlays: str, flags: Sequence[str] = ()) -> Config:
    files = [ROOT / f"configs/{recipe}.toml"]
    files += [ROOT / f"configs/overlays/{name}.toml" for name in overlays.split()]
    return load_config(files, flags)


def planned(config: Config, machine: Machine) -> tuple[ModelFacts, Plan]:
    smollm2 = config.model.name.endswith("SmolLM2-135M-Instruct")
    if smollm2 and not SMOLLM2.exists():
        pytest.skip("needs SmolLM2: make models/SmolLM2-135M-Instruct")
    facts = find_model(str(SMOLLM2) if smollm2 else config.model.name)
    assert facts is not None
    return facts, make_plan(config, facts, machine, machine.device(config))


def test_every_overlay_is_planned_here() -> None:
    assert {name for overlays in MACHINES for name in overlays.split()} == set(OVERLAYS)


@pytest.mark.parametrize("overlays", MACHINES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fits_the_machine_of_its_overlays(recipe: str, overlays: str) -> None:
    config, machine = stacked(recipe, overlays), MACHINES[overlays]
    facts, plan = planned(config, machine)
    assert set(config.trainer.model.lora.target_modules) <= set(facts.linear_modules)
    needs = [bundle.need.bytes for bundle in plan.bundles if bundle.need]
    if plan.device == "cuda":
        assert all(need < (b.has_gib or 0) * GIB for need, b in zip(needs, plan.bundles, strict=True))
    else:
        assert sum(needs) < machine.memory_gib * GIB
    assert plan.kv_tokens is not None and plan.kv_tokens > 20 * config.seq_len
    assert 1 <= plan.checkpoints <= plan.steps
    smallest = {"smoke": 16, "demo": 32, "registries": 32, "cpu": 64, "modal-l4": 64}
    purpose = next((name for name in smallest if name in overlays.split()), None)
    assert plan.rollouts_per_step == (smallest[purpose] if purpose else 512)


@pytest.mark.parametrize("recipe", RECIPES)
def test_smoke_is_two_steps_and_two_checkpoints_wherever_it_runs(recipe: str) -> None:
    for overlays in (name for name in MACHINES if name.endswith("smoke")):
        config = stacked(recipe, overlays)
        assert (config.max_steps, config.ckpt.interval, config.output_dir) == (2, 1, "runs/smoke")
        assert config.model == stacked(recipe, overlays.removesuffix(" smoke")).model


@pytest.mark.parametrize("overlays", MACHINES)
def test_a_dry_run_of_it_answers_on_any_machine(
    overlays: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"configs/{name}.toml" for name in ["redteam", *(f"overlays/{o}" for o in overlays.split())]]
    if SMOLLM2.exists():
        (tmp_path / "models").symlink_to(SMOLLM2.parent)
    elif "cpu" in overlays:
        pytest.skip("needs SmolLM2: make models/SmolLM2-135M-Instruct")
    monkeypatch.chdir(tmp_path)
    assert train.main([*(str(ROOT / file) for file in files), "--dry-run"]) == 0, capsys.readouterr().err
    assert "checkpoints:" in capsys.readouterr().out


def test_the_page_quotes_the_plan() -> None:
    """Each block of docs/recipes.md that begins with `$ rezero plan` goes on with lines of that plan."""
    page = (ROOT / "docs/recipes.md").read_text("utf-8")
    blocks = re.findall(r"^    \$ rezero plan configs/(\S+)\.toml(.*)\n((?:    .+\n)+)", page, re.MULTILINE)
    assert len(blocks) == 3
    for recipe, rest, quoted in blocks:
        overlays = " ".join(re.findall(r"overlays/(\S+)\.toml", rest))
        config = stacked(recipe, overlays)
        _, plan = planned(config, MACHINES[overlays])
        lines = {line.strip() for line in render_plan(plan, config).splitlines()}
        assert {line.strip() for line in quoted.splitlines()} <= lines, overlays


def test_the_page_names_every_overlay() -> None:
    page = (ROOT / "docs/recipes.md").read_text("utf-8")
    assert [name for name in OVERLAYS if f"`{name}`" not in page] == []
