"""Claims about serving on Modal: the function as it is sent, and the command that its container runs."""

import json
import os
from pathlib import Path

import pytest
from modal_proto import api_pb2

from infra.modal import serve
from tests.infra.modal.fake_control_plane import ROOT, FakeControlPlane

RUN = "outputs/glm4flash-redteam"
RECIPE = ROOT / "configs/serve/glm-4.7-flash.toml"


def deployed(plane: FakeControlPlane, *words: str) -> api_pb2.Function:
    assert serve.main([*words, "--config", str(RECIPE)]) == 0
    return plane.function_of("re-zero-serve")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


def test_the_function_scales_to_zero_behind_modals_proxy(
    plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    function = deployed(plane, RUN)
    assert (function.module_name, function.function_name) == ("infra.modal.serve", "serve")
    assert (function.resources.gpu_config.gpu_type, function.resources.gpu_config.count) == ("H100", 1)
    web = function.webhook_config
    assert (web.web_server_port, web.requires_proxy_auth) == (8000, True)
    scaling = function.autoscaler_settings
    assert (scaling.min_containers, scaling.max_containers, scaling.scaledown_window) == (0, 1, 300)
    assert function.max_concurrent_inputs == 256
    mounts = {mount.mount_path: mount for mount in function.volume_mounts}
    assert plane.names[mounts["/root/checkpoints"].volume_id] == "re-zero-checkpoints"
    assert mounts["/root/checkpoints"].read_only and not mounts["/root/.cache/huggingface"].read_only
    printed = capsys.readouterr().out
    assert "Modal-Key" in printed and "modal app stop re-zero-serve" in printed


def test_without_the_proxy_the_servers_own_key_still_stands(plane: FakeControlPlane) -> None:
    function = deployed(plane, RUN, "--no-proxy-auth")
    assert not function.webhook_config.requires_proxy_auth
    assert len(function.secret_ids) >= 2


def test_the_container_runs_rezero_serve_on_the_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "checkpoints" / RUN
    run.mkdir(parents=True)
    (run / "config.toml").write_text('[model]\nname = "/models/base"\n', "utf-8")
    request = {"words": [RUN], "tomls": [RECIPE.read_text("utf-8")], "home": str(tmp_path)}
    monkeypatch.setitem(os.environ, serve.REQUEST, json.dumps(request))
    started: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda words, cwd: started.append([str(cwd), *words]))
    serve.serve()
    ((cwd, *words),) = started
    assert cwd == str(tmp_path / "checkpoints")
    assert words[1:5] == ["-m", "rezero_ray.cli", "serve", RUN]
    assert words[-6:] == [
        "--serve.host",
        "0.0.0.0",
        "--serve.port",
        "8000",
        "--serve.api_key_env",
        "VLLM_API_KEY",
    ]
    assert Path(words[words.index("--config") + 1]).read_text("utf-8") == RECIPE.read_text("utf-8")


def test_the_model_that_is_fetched_is_the_one_that_will_be_loaded(tmp_path: Path) -> None:
    checkpoint = tmp_path / RUN / "checkpoints" / "step_000004"
    checkpoint.mkdir(parents=True)
    (tmp_path / RUN / "config.toml").write_text('[model]\nname = "owner/trained"\n', "utf-8")
    served = '[model]\nname = "owner/served"\n'
    of_checkpoint = f"late={RUN}/checkpoints/step_000004"
    assert serve.base_model([RUN], [], tmp_path) == "owner/trained"
    assert serve.base_model([of_checkpoint], [], tmp_path) == "owner/trained"
    assert serve.base_model([RUN], [served], tmp_path) == "owner/served"
    assert serve.base_model(["owner/alone"], [served], tmp_path) == "owner/alone"


def test_a_toml_that_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main([RUN, "--config", "configs/serve/none.toml"]) == 2
    assert "configs/serve/none.toml: cannot be read" in capsys.readouterr().err
