"""Claims about what travels with a submitted job."""

from pathlib import Path

import pytest

from infra.ray.package import CONFIG, ROOMS, ROOT, packed
from rezero_ray.config import ConfigError
from rezero_ray.config.loading import load_config
from tests.record_builders import make_config


def test_the_rooms_and_the_resolved_config_travel_and_nothing_else() -> None:
    config = make_config(infra__kind="ray", seed=7)
    with packed(config) as folder:
        assert {path.name for path in folder.iterdir()} == {*ROOMS, CONFIG}
        assert not list(folder.rglob("__pycache__"))
        assert load_config([folder / CONFIG]) == config
        entry_points = "rezero_ray/vllm_cpu/discovery/rezero_vllm_cpu-1.dist-info/entry_points.txt"
        assert (folder / entry_points).is_file(), "vLLM finds our platform by it"
        assert (folder / "infra/ray/package.py").read_bytes() == (ROOT / "infra/ray/package.py").read_bytes()
    assert not folder.exists()


def test_code_with_something_large_beside_it_is_refused_with_its_name(tmp_path: Path) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
    large = tmp_path / "environments" / "data.bin"
    with large.open("wb") as file:
        file.truncate(30 * 2**20)
    with (
        pytest.raises(ConfigError, match=r"30 MiB, environments/data.bin the most of it"),
        packed(make_config(), root=tmp_path),
    ):
        pass
