"""What a run says of its forecast: the lengths it rests on, the file, and the lines on the console."""

import json
from pathlib import Path

import pytest

from rezero_ray.batch import build_batch
from rezero_ray.config import Config, load_config
from rezero_ray.forecast.beforehand import forecast, place_of
from rezero_ray.forecast.comparison import Expectation, compare, comparison_lines, record, steady
from rezero_ray.forecast.lengths import full_lengths, lengths_that_came
from rezero_ray.forecast.measurement import measure_place
from rezero_ray.plan import expectation, make_plan, render_plan
from rezero_ray.preflight import Machine
from rezero_ray.preflight.environments import look_at
from rezero_ray.preflight.expected import Expected, expected_lengths
from rezero_ray.preflight.model_facts import find_model
from tests.forecast.test_step_time import GLM, H100, TWO_CORES, glm
from tests.record_builders import make_group, make_rollout

ROOT = Path(__file__).parents[2]
CPU = Machine(gpu_gib=(), cpus=2, memory_gib=24.0, shm_gib=8.0)
EXPECTED = Expected(prompt=144, turns=3, words="prompts of 144 tokens")


def on_cpu(*flags: str) -> Config:
    return load_config([ROOT / "configs/redteam.toml", ROOT / "configs/overlays/cpu.toml"], flags)


def expectation_of(config: Config) -> Expectation:
    found = expectation(config, find_model(config.model.name), CPU, "cpu", TWO_CORES, EXPECTED)
    assert found is not None
    return found


def row(step: int, *, seconds: float = 100.0, memory: float = 4.0) -> dict[str, float]:
    """A line of metrics.jsonl in which all that is compared was forecast to the point."""
    parts = {"step": seconds, "rollout": seconds / 2, "train": seconds / 2, "sync": 1.0}
    names = {"step": "step", "rollouts": "rollout", "training": "train", "publishing": "sync"}
    return {
        "step": step,
        **{f"time/{name}": value for name, value in parts.items()},
        **{f"forecast/{name}": parts[key] for name, key in names.items()},
        **{
            f"{table}/{kind}_gib": memory
            for table in ("memory", "forecast")
            for kind in ("engine", "learner")
        },
    }


def test_every_turn_is_full_and_no_rollout_is_longer_than_seq_len() -> None:
    lengths = full_lengths(on_cpu(), prompt=144, turns=3)
    assert lengths.completions == (3 * 48,) * 64 and lengths.turns == 3 * 64
    assert max(full_lengths(on_cpu(), prompt=500, turns=9).completions) == 12
    # Behind 144 tokens 4 x (144 + 64) fit into a micro-batch of 1,024: two trees a group.
    assert lengths.computed * 3 >= 8 * (2 * 144 + 8 * (144 + 64)) and lengths.fullest == 144 + 4 * (144 + 64)


def test_the_lengths_that_came_count_what_was_computed() -> None:
    config = on_cpu("--trainer_gpu_ids=[1]")
    tails = ([7, 8, 9, 10, 11], [7, 8])
    masks = ([1, 1, 0, 1, 1], [1, 1])  # two turns around a reply, and one turn
    groups = [
        make_group(
            [
                make_rollout([1, 2, 3], tail, mask=mask, reward=reward, turns=turns)
                for tail, mask, reward, turns in zip(tails, masks, (1.0, -1.0), (2, 1), strict=True)
            ],
            index=index,
        )
        for index in range(2)
    ]
    batch = build_batch(groups, config, ranks=1)
    lengths = lengths_that_came(groups, batch)
    assert lengths.prompts == (3, 3) and lengths.completions == (4, 2, 4, 2)
    assert lengths.replies == 2 and lengths.turns == 6
    assert lengths.trained == 12
    assert lengths.computed == lengths.fullest == 2 * (3 + 5 + 2)  # one micro-batch, each prompt once


def test_the_first_step_is_left_out_where_there_is_another() -> None:
    assert [r["step"] for r in steady([row(1)])] == [1]
    assert [r["step"] for r in steady([{"step": 0}, row(1), row(2), row(3)])] == [2, 3]


def test_medians_of_the_steady_steps_are_compared_and_the_peak_of_memory() -> None:
    rows = [row(1, seconds=500.0), row(2, seconds=80.0), row(3, seconds=120.0, memory=5.0)]
    rows[1]["time/step"] = rows[2]["time/step"] = 200.0
    compared = {each.what: each for each in compare(rows, expectation_of(on_cpu()))}
    assert compared["step"].forecast == 100.0 and compared["step"].measured == 200.0
    assert compared["step"].ratio == 0.5
    assert compared["memory/learner"].measured == 5.0 and compared["memory/learner"].ratio == 1.0
    lines = comparison_lines(list(compared.values()), [2, 3])
    assert lines[0] == "forecast against measured, the median of steps 2 to 3:"
    assert lines[1].startswith("  step: forecast 100.0, measured 200.0 s (ratio 0.50); the plan said ")


def test_the_record_is_json_and_names_every_term() -> None:
    found = json.loads(json.dumps(record([row(1), row(2)], expectation_of(on_cpu()))))
    assert found["steps_compared"] == [2]
    assert set(found["plan_seconds"]) == {"rollouts", "training", "publishing", "checkpoint"}
    assert sum(found["plan_gib"]["learner"].values()) > 1
    assert [each["what"] for each in found["compared"]][:2] == ["step", "rollouts"]


def test_a_plan_says_what_its_seconds_rest_on() -> None:
    machine = Machine(
        gpu_gib=(79.6,) * 4, cpus=64, memory_gib=512.0, shm_gib=64.0, gpu_name="NVIDIA H100 80GB HBM3"
    )
    plan = make_plan(glm(), find_model("zai-org/GLM-4.7-Flash"), machine, "cuda")
    seconds = forecast(glm(), GLM, H100, EXPECTED, kv_tokens=plan.kv_tokens)
    text = render_plan(plan, glm(), (), seconds)
    assert (
        f"time a step: {seconds.seconds_per_step:.1f} s (rollouts {seconds.step.rollouts.seconds:.1f},"
        in text
    )
    assert (
        "assumed: prompts of 144 tokens, 3 turns with replies of 32 tokens, every completion of max_tokens = 512"
        in text
    )
    assert "not measured" in text
    assert seconds.seconds == pytest.approx(200 * seconds.seconds_per_step)


def test_where_the_environments_were_not_asked_prompts_are_as_long_as_they_may_be() -> None:
    seconds = forecast(glm(), GLM, H100, None, kv_tokens=None)
    assert seconds.lengths.prompts[0] == 4096 - 512 and "1 turn" in seconds.assumption


def test_environments_tell_prompts_and_turns() -> None:
    config = on_cpu()
    expected = expected_lengths(config, look_at(config, find_model(config.model.name), effort=None))
    assert expected is not None
    assert expected.turns == 3 and 120 < expected.prompt < 170


def test_no_gpu_in_sight_is_taken_for_the_recipes_own_and_said() -> None:
    facts = find_model("zai-org/GLM-4.7-Flash")
    assert facts is not None
    place, note = place_of(glm(), facts, CPU, "cuda")
    assert place == H100 and note is not None and "H100" in note


def test_this_machine_is_measured_within_its_time() -> None:
    place = measure_place("cpu", "float32", hidden=64, inner=128, vocabulary=1000, seconds=0.05)
    assert place.cores and place.gather is None
    assert [rows for rows, _ in place.products] == [1, 8, 64, 256]
    assert all(speed > 1e7 for _, speed in place.products)
    assert place.memory > 1e8 and place.logits > 1e5 and 0 < place.operation < 0.1
