"""Where the key of `rezero serve` comes from."""

import pytest

from rezero_ray.config.serving import ServeConfig
from rezero_ray.serving.server import ApiKey


def test_the_key_is_the_one_in_the_variable_that_api_key_env_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "usual")
    monkeypatch.setenv("KEYS_OWN", "named")
    named, usual = ApiKey(ServeConfig(api_key_env="KEYS_OWN")), ApiKey(ServeConfig())
    assert (named.value, named.made) == ("named", False)
    assert (usual.value, usual.made) == ("usual", False)
