"""What the TOML files and flags of a right request come to."""

from pathlib import Path

import pytest

from rezero_ray.config import Config, ConfigError, Problem, load_config, read_draft, read_environment
from rezero_ray.config.flags import Override

CONTRACT = Path(__file__).with_name(
    "contract.toml"
)  # word for word the file that the dialect promises to read


def test_the_contract_file_loads_unchanged_and_means_what_its_comments_say() -> None:
    config = load_config([CONTRACT])
    assert (config.inference_gpu_ids, config.trainer_gpu_ids) == ([0], [1, 2, 3])
    assert (config.max_steps, config.seq_len) == (200, 4096)
    assert config.model.name == "zai-org/GLM-4.7-Flash"
    assert config.wandb is not None and config.wandb.project == "re-zero"
    assert config.ckpt.interval == 5 and config.ckpt.keep_last == 3
    assert config.trainer.model.lora.target_modules == ["q_b_proj", "o_proj"]
    assert config.trainer.model.lora.alpha == 32.0
    assert config.trainer.optim.lr == 5e-6
    assert config.trainer.loss.type == "importance_sampling"
    assert config.orchestrator.batch_size * config.orchestrator.rollouts_per_example == 512
    assert config.orchestrator.env[0].id == "intertwine/sv-env-redteam-attack"
    assert config.inference.gpu_memory_utilization == 0.95
    assert config.inference.model.tool_call_parser == "hermes"


def with_flags(*flags: str) -> Config:
    return load_config([CONTRACT], flags)


def test_flags_win_over_files_and_the_last_flag_over_the_others() -> None:
    assert with_flags("--max_steps", "3").max_steps == 3
    assert with_flags("--max_steps=3", "--max-steps=4").max_steps == 4
    assert with_flags("--trainer.optim.lr", "1e-5").trainer.optim.lr == 1e-5
    assert with_flags("--trust.canary", "false").trust.canary is False


def test_a_flag_that_is_no_toml_is_a_string_and_a_number_too_where_a_string_belongs() -> None:
    assert with_flags("--model.name", "some/model").model.name == "some/model"
    assert with_flags("--output_dir", "2026").output_dir == "2026"
    assert with_flags("--output_dir=2026-01-01").output_dir == "2026-01-01"
    assert with_flags("--output_dir", "a = 1\nb = 2").output_dir == "a = 1\nb = 2"


def test_flags_reach_into_arrays_and_append_to_them() -> None:
    config = with_flags("--orchestrator.env.0.weight", "2", "--orchestrator.env.1.id", "other")
    assert [(env.id, env.weight) for env in config.orchestrator.env] == [
        ("intertwine/sv-env-redteam-attack", 2.0),
        ("other", 1.0),
    ]
    config = with_flags("--trainer.model.lora.target_modules", '["o_proj"]')
    assert config.trainer.model.lora.target_modules == ["o_proj"]


def test_naming_another_loss_drops_the_options_of_the_file() -> None:
    loss = with_flags("--trainer.loss.clip_high", "0.3", "--trainer.loss.type", "dapo").trainer.loss
    assert loss.model_dump(include={"type", "clip_high", "clip_low"}) == {
        "type": "dapo",
        "clip_high": 0.3,
        "clip_low": 0.2,
    }


def test_an_option_of_the_loss_alone_is_merged_with_the_files() -> None:
    loss = with_flags("--trainer.loss.token_mask_low", "0.5").trainer.loss
    assert loss.model_dump()["token_mask_low"] == 0.5 and loss.model_dump()["geo_mask_high"] == 10.0


def test_later_files_win_and_arrays_of_tables_replace(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.toml"
    overlay.write_text('max_steps = 7\n[[orchestrator.env]]\nid = "a"\n[[orchestrator.env]]\nid = "b"\n')
    config = load_config([CONTRACT, overlay])
    assert config.max_steps == 7 and [env.id for env in config.orchestrator.env] == ["a", "b"]
    assert load_config([overlay, CONTRACT]).max_steps == 200


def test_a_config_does_not_change_after_loading() -> None:
    with pytest.raises(Exception, match="frozen"):
        load_config([CONTRACT]).max_steps = 3


def test_the_error_names_the_file_that_was_laid_last(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.toml"
    overlay.write_text("# a comment\n\n[trainer.optim]\nlr = 'x'\n")
    with pytest.raises(ConfigError) as raised:
        load_config([CONTRACT, overlay])
    (problem,) = raised.value.problems
    assert problem.origin is not None
    assert (problem.origin.source, problem.origin.line, problem.origin.column) == (str(overlay), 4, 1)


def test_a_gpu_may_be_shared_only_when_the_engine_leaves_room() -> None:
    with pytest.raises(ConfigError, match=r"GPU 0 stands in inference_gpu_ids and in trainer_gpu_ids"):
        with_flags("--trainer_gpu_ids", "[0]")
    assert with_flags("--trainer_gpu_ids", "[0]", "--inference.gpu_memory_utilization", "0.5")


def test_more_learner_ranks_than_rollouts_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 learner ranks, but a step has only 2 rollouts"):
        with_flags("--orchestrator.batch_size", "1", "--orchestrator.rollouts_per_example", "2")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{ a = 1 }", {"a": 1}),
        ('{"a": [1, true], "b": null}', {"a": [1, True], "b": None}),
        ("{not json", "{not json"),
    ],
)
def test_a_table_is_written_as_toml_or_as_json(text: str, value: object) -> None:
    assert Override(("args",), text, "").value == value


def test_what_is_wrong_is_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    """A required key that is missing, a table of another type and an environment without an id, all in one."""
    file = tmp_path / "wrong.toml"
    file.write_text(
        'output_dir = 3\nmodel = 4\nmax_steps = 9\n[orchestrator]\nenv = [{ weight = 1.0 }, { id = "a" }]\n'
    )
    draft = read_draft([file])
    assert draft.config is not None and draft.config.max_steps == 9
    assert [env.id for env in draft.config.orchestrator.env][1] == "a"
    keys = {problem.key for problem in draft.problems}
    assert keys == {"output_dir", "model", "orchestrator.env.0.id"}
    later = [
        Problem("model.name", "-"),
        Problem("orchestrator.env.1.id", "-"),
        Problem("seed", "-", others=("model",)),
    ]
    assert [problem.key for problem in draft.with_findings(later)][-1:] == ["orchestrator.env.1.id"]
    assert len(draft.with_findings(later)) == 4


def test_flags_of_one_environment_are_its_keys() -> None:
    draft = read_environment(["--env", "my-env", "--args.seed=3", "--model=m", "--weigth", "2.0"])
    assert draft.config is not None
    (environment,) = draft.config.orchestrator.env
    assert (environment.id, environment.args, draft.config.model.name) == ("my-env", {"seed": 3}, "m")
    (problem,) = draft.problems
    assert str(problem).startswith("--weigth 2.0: unknown key") and "weight" in problem.remedy
