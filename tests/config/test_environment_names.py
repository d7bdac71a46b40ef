"""The same environment twice with different args is two environments, each with a name of its own."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.config import Config, config_id, dump_toml, load_config
from rezero_ray.config.environment import EnvConfig, chosen, named
from rezero_ray.evaluate import _appended, _wanted
from rezero_ray.sampler import PromptSampler
from tests.config.run_request import refused, write_right

TWICE = """
[[orchestrator.env]]
id = "phishing-detection"
args = { num_examples = 8 }
weight = 3.0
"""


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    request = write_right(tmp_path)
    request.write_text(request.read_text() + TWICE)
    return request


def names(config: Config) -> list[str]:
    return [env.name for env in config.orchestrator.env]


def test_equal_ids_with_different_args_get_names_of_their_own_and_keep_them_in_the_resolved_file(
    twice: Path,
) -> None:
    config = load_config([twice])
    assert names(config) == ["phishing-detection-1", "phishing-detection-2"]
    resolved = twice.with_name("config.toml")
    resolved.write_text(dump_toml(config))
    assert load_config([resolved]) == config


def test_both_are_sampled_by_their_own_weight_and_size(twice: Path) -> None:
    weights = {env.name: env.weight for env in load_config([twice]).orchestrator.env}
    sampler = PromptSampler(dict.fromkeys(weights, 8), weights, seed=0)
    drawn = Counter(prompt.environment for prompt in sampler.take(400))
    assert set(drawn) == set(weights)
    assert 250 < drawn["phishing-detection-2"] < 350


def test_a_single_entry_is_named_by_its_id_and_nothing_of_it_changes(tmp_path: Path) -> None:
    config = load_config([write_right(tmp_path)])
    assert names(config) == ["phishing-detection"]
    assert "phishing-detection" in dump_toml(config) and 'name = "phishing-detection"' not in dump_toml(
        config
    )
    named_by_hand = load_config(
        [tmp_path / "right.toml"], ["--orchestrator.env.0.name", "phishing-detection"]
    )
    assert config_id(named_by_hand) == config_id(config)
    other = load_config([tmp_path / "right.toml"], ["--orchestrator.env.0.name", "mail"])
    assert names(other) == ["mail"] and config_id(other) != config_id(config)


def test_a_name_that_another_entry_has_is_refused_with_one_that_is_free(
    twice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--orchestrator.env.0.name", "mail", "--orchestrator.env.1.name", "mail"]
    printed = refused(capsys, twice, *flags)
    assert "orchestrator.env.1.name" in printed and 'such as "mail-2"' in printed


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-", "ä", "x" * 101, "a\n"])
def test_a_name_that_no_metric_can_carry_is_refused(
    twice: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = refused(capsys, twice, f"--orchestrator.env.0.name={name!r}")
    assert "orchestrator.env.0.name" in printed and "letters, digits" in printed


def test_the_same_entry_twice_is_refused_whatever_its_names(
    twice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--orchestrator.env.0.args", "{ num_examples = 8 }", "--orchestrator.env.0.name", "other"]
    assert "is listed twice with the same args" in refused(capsys, twice, *flags)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.none() | st.sampled_from(["a", "b", "a-1", "b-2"])), max_size=6
    )
)
def test_names_are_unique_unless_written_twice_and_naming_again_changes_nothing(
    entries: list[tuple[str, str | None]],
) -> None:
    given_entries = [
        EnvConfig(id=env_id, args={"n": n})
        if name is None
        else EnvConfig(id=env_id, args={"n": n}, name=name)
        for n, (env_id, name) in enumerate(entries)
    ]
    found = named(given_entries)
    written = [name for _, name in entries if name is not None]
    counted = Counter(env.name for env in found)
    assert all(count == 1 or written.count(name) == count for name, count in counted.items())
    assert all(name is None or env.name == name for env, (_, name) in zip(found, entries, strict=True))
    assert named(found) == found


def test_env_of_the_commands_means_a_name_or_all_of_an_id(twice: Path) -> None:
    listed = load_config([twice]).orchestrator.env
    assert chosen(listed, "phishing-detection-2") == [1]
    assert chosen(listed, "phishing-detection") == [0, 1]
    assert chosen(listed, "network-logs") == []
    assert _wanted(listed, ["phishing-detection-2"]) == [listed[1]]
    assert [env.name for env in _wanted(listed, ["network-logs", "phishing-detection"])] == [
        *("network-logs", "phishing-detection-1", "phishing-detection-2")
    ]


def test_an_environment_that_eval_is_asked_for_is_added_to_those_of_its_files(twice: Path) -> None:
    asked = ["phishing-detection-1", "network-logs"]
    assert _appended([twice], [], asked) == ["--orchestrator.env.2.id", "network-logs"]
    request = ["--model.name", "m", "--max_steps", "1", "--output_dir", "o"]
    assert _appended([], request, ["network-logs"]) == ["--orchestrator.env.0.id", "network-logs"]
