"""Each key of `[infra]` for Modal, off its default, in what Modal's client sends to a control plane."""

from infra.modal.bootstrap import DASHBOARD_URL
from infra.modal.container import Attempt
from infra.modal.table import ModalInfraConfig
from tests.infra.modal.fake_control_plane import FakeControlPlane
from tests.infra.modal.test_launch import launched, redteam

KEYS = {
    "infra.app": "keys",
    "infra.gpu": "H200:2",
    "infra.cpu": "12",
    "infra.memory_gib": "96",
    "infra.timeout_hours": "5",
    "infra.retries": "2",
    "infra.region": '["eu-west"]',
    "infra.image": "nvidia/cuda:13.0.1-devel-ubuntu22.04",
    "infra.home": "/keys",
    "infra.checkpoints_volume": "keys-checkpoints",
    "infra.mlflow_volume": "keys-mlflow",
    "infra.hf_cache_volume": "keys-hf",
    "infra.vllm_cache_volume": "keys-vllm",
    "infra.secret": "keys-token",
}
ON_TWO_GPUS = {"inference_gpu_ids": "[0]", "trainer_gpu_ids": "[1]"}


def test_every_key_is_in_the_function_that_is_sent(plane: FakeControlPlane) -> None:
    plane.secrets_there.add("keys-token")
    flags = [word for key, value in (KEYS | ON_TWO_GPUS).items() for word in (f"--{key}", value)]
    run = launched(*flags)
    function = plane.function_of(run.name)
    assert run.name.startswith("keys-") and run.name in plane.apps
    gpu = function.resources.gpu_config
    assert (gpu.gpu_type, gpu.count) == ("H200", 2)
    assert (function.resources.milli_cpu, function.resources.memory_mb) == (12_000, 96 * 1024)
    assert function.timeout_secs == 5 * 3600
    assert function.retry_policy.retries == 2
    assert list(function.scheduler_placement.regions) == ["eu-west"]
    assert plane.dockerfile_of(function.image_id)[0] == "FROM nvidia/cuda:13.0.1-devel-ubuntu22.04"
    assert {mount.mount_path: plane.names[mount.volume_id] for mount in function.volume_mounts} == {
        "/keys/checkpoints": "keys-checkpoints",
        "/keys/mlflow": "keys-mlflow",
        "/keys/.cache/huggingface": "keys-hf",
        "/keys/.cache/vllm": "keys-vllm",
    }
    assert [plane.names[secret] for secret in function.secret_ids] == ["keys-token"]


def test_without_a_dashboard_the_container_opens_no_tunnel_and_ray_asks_for_a_token_all_the_same(
    plane: FakeControlPlane,
) -> None:
    record = launched("--infra.dashboard", "false").record
    table = redteam("--infra.dashboard", "false").infra
    assert isinstance(table, ModalInfraConfig)
    with Attempt(table, record, "", resume=False)._dashboard() as variables:
        assert variables["RAY_AUTH_MODE"] == "token" and DASHBOARD_URL not in variables
    assert not plane.tunnels
