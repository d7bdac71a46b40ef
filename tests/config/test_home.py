"""`~` is expanded in every path of a config, and refused where nobody knows what it means."""

from pathlib import Path

import pytest

from rezero_ray.config import ConfigError, load_config
from rezero_ray.config.keys import walk
from rezero_ray.config.table import PATH
from rezero_ray.preflight.model_facts import find_model
from tests.config.run_request import RIGHT, make_model

HOME_KEYS = {
    "model.name": "~/models/tiny",
    "output_dir": "~/runs/one",
    "mlflow.tracking_uri": "~/mlruns",
    "orchestrator.env.0.python": "~/venv/bin/python",
}


@pytest.fixture
def request_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = tmp_path / "a.toml"
    file.write_text(RIGHT.format(output="out", model="model"))
    return file


def value_at(config: object, key: str) -> object:
    for part in key.split("."):
        config = config[int(part)] if isinstance(config, list) else getattr(config, part)
    return config


def test_these_are_all_the_paths_of_the_schema() -> None:
    assert {key for key, field in walk() if PATH in field.metadata} == set(HOME_KEYS)


@pytest.mark.parametrize("key", HOME_KEYS)
def test_a_path_in_the_home_directory_is_expanded(request_file: Path, tmp_path: Path, key: str) -> None:
    config = load_config([request_file], [f"--{key}={HOME_KEYS[key]}"])
    assert value_at(config, key) == str(tmp_path / "home") + HOME_KEYS[key][1:]


@pytest.mark.parametrize(
    ("uri", "expanded"),
    [
        ("sqlite:///~/mlflow.db", "sqlite:///{home}/mlflow.db"),
        ("file:~/mlruns", "file:{home}/mlruns"),
        ("https://host/~user", "https://host/~user"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_a_store_in_the_home_directory_is_expanded_and_an_address_is_not(
    request_file: Path, tmp_path: Path, uri: str, expanded: str
) -> None:
    config = load_config([request_file], [f"--mlflow.tracking_uri={uri}"])
    assert config.mlflow.tracking_uri == expanded.format(home=tmp_path / "home")


@pytest.mark.parametrize("key", HOME_KEYS)
def test_the_home_of_an_unknown_user_is_refused(request_file: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="no home directory of nobody-of-that-name") as raised:
        load_config([request_file], [f"--{key}=~nobody-of-that-name/x"])
    assert f"--{key}=" in str(raised.value) and "without ~" in str(raised.value)


def test_home_is_refused_where_the_run_takes_place_on_another_machine(request_file: Path) -> None:
    flags = ["--model.name=~/model", "--infra.kind=modal"]
    with pytest.raises(ConfigError, match="the run takes place on another machine"):
        load_config([request_file], flags)


def test_what_the_preflight_sees_is_what_the_run_loads(request_file: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "home" / "models" / "tiny")
    config = load_config([request_file], ["--model.name=~/models/tiny"])
    facts = find_model(config.model.name)
    assert facts is not None and facts.folder == Path(config.model.name)
