"""Claims about a launch: what Modal is asked for, and what is refused. Modal is a fake, its client is real."""

import subprocess
import sys
from pathlib import Path

import pytest
from modal_proto import api_pb2

from infra.modal.launcher import ModalRun, launch, runs
from infra.modal.records import Records
from rezero_ray import cli, train
from rezero_ray.config import Config, ConfigError
from rezero_ray.config.loading import load_config
from tests.infra.modal.fake_control_plane import ROOT, FakeControlPlane

REDTEAM = ["configs/redteam.toml", "configs/overlays/modal.toml"]
DONE = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)


def redteam(*flags: str) -> Config:
    return load_config([Path(file) for file in REDTEAM], flags)


def launched(*flags: str, resume: bool = False, force_new: bool = False) -> ModalRun:
    return launch(redteam(*flags), resume=resume, force_new=force_new)


def end(plane: FakeControlPlane, run: ModalRun, status: int = 0) -> None:
    """The call returns, and its container has said so."""
    from modal._serialization import serialize

    plane.finish(run.record.call_id, api_pb2.GenericResult(status=DONE.status, data=serialize(status)))
    records = Records()
    records.update(records.get(run.name) or run.record, status="done")


def test_the_function_is_sent_as_the_toml_has_it(plane: FakeControlPlane) -> None:
    run = launched("--infra.region", '["us-east"]', "--infra.timeout_hours", "6", "--infra.retries", "3")
    function = plane.function_of(run.name)
    assert (function.module_name, function.function_name) == ("infra.modal.container", "train")
    gpu = function.resources.gpu_config
    assert (gpu.gpu_type, gpu.count) == ("H100", 4)
    assert (function.resources.milli_cpu, function.resources.memory_mb) == (32_000, 256 * 1024)
    assert {mount.mount_path: plane.names[mount.volume_id] for mount in function.volume_mounts} == {
        "/root/checkpoints": "re-zero-checkpoints",
        "/root/mlflow": "re-zero-mlflow",
        "/root/.cache/huggingface": "re-zero-hf-cache",
        "/root/.cache/vllm": "re-zero-vllm-cache",
    }
    assert [plane.names[secret] for secret in function.secret_ids] == ["huggingface"]
    assert function.timeout_secs == 6 * 3600
    assert (function.retry_policy.retries, function.retry_policy.initial_delay_ms) == (3, 0)
    assert function.single_use_containers
    assert function.autoscaler_settings.max_containers == 1
    assert list(function.scheduler_placement.regions) == ["us-east"]
    assert plane.tags[plane.apps[run.name]] == {"run": run.name, "config_id": run.record.config_id}


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        (("--budget.max_hours", "2"), 2 * 3600),
        (("--budget.max_usd", "10.08"), 1800),  # at 20.16 dollars an hour
        (("--budget.max_usd", "10.08", "--infra.usd_per_hour", "10.08"), 3600),
        (("--budget.max_hours", "100"), 24 * 3600),
    ],
)
def test_no_attempt_may_take_longer_than_the_budget_leaves(
    plane: FakeControlPlane, flags: tuple[str, ...], seconds: int
) -> None:
    assert plane.function_of(launched(*flags).name).timeout_secs == seconds


def test_the_image_is_made_of_the_projects_own_pins_and_its_code(plane: FakeControlPlane) -> None:
    function = plane.function_of(launched().name)
    commands = plane.dockerfile_of(function.image_id)
    assert commands[0] == "FROM nvidia/cuda:13.0.2-devel-ubuntu24.04"
    assert any("--no-deps --requirements" in command and "gpu.txt" in command for command in commands)
    sent = {file.filename: file.data for image in plane.images.values() for file in image.context_files}
    assert sent["/.0_gpu.txt"] == (ROOT / "requirements/gpu.txt").read_bytes()
    code = {file.filename for mount in plane.mounts for file in mount.files}
    assert {f"/root/rezero-code/{room}/__init__.py" for room in ("rezero_ray", "actors", "infra")} <= code
    assert "/root/rezero-code/environments/config_verification/policies/terraform.rego" in code
    entry_points = "rezero_ray/vllm_cpu/discovery/rezero_vllm_cpu-1.dist-info/entry_points.txt"
    assert f"/root/rezero-code/{entry_points}" in code, "vLLM finds our platform by it"
    assert not [name for name in code if "__pycache__" in name]


def test_a_cpu_run_takes_the_cpu_pins_and_no_gpu(plane: FakeControlPlane) -> None:
    cpu = ("--device", "cpu", "--infra.gpu", '""')
    function = plane.function_of(launched(*cpu).name)
    assert function.resources.gpu_config.gpu_type == ""
    assert any("cpu.txt" in command for command in plane.dockerfile_of(function.image_id))


def test_a_second_launch_is_told_where_the_first_one_runs(plane: FakeControlPlane) -> None:
    first = launched()
    with pytest.raises(ConfigError, match=f"(?s){first.address}.*rezero logs {first.name}.*--force-new"):
        launched("--output_dir", "elsewhere", "--trainer.zero.prefetch_bucket_size", "1000000")
    assert len(plane.calls) == 1


def test_force_new_launches_beside_it_into_another_directory_only(plane: FakeControlPlane) -> None:
    first = launched()
    with pytest.raises(ConfigError, match="writes into the same output_dir"):
        launched(force_new=True)
    second = launched("--output_dir", "elsewhere", force_new=True)
    assert second.name.startswith(f"{first.name}-")
    assert {run.name for run in runs()} == {first.name, second.name}


def test_another_configuration_into_the_same_directory_is_refused(plane: FakeControlPlane) -> None:
    launched()
    with pytest.raises(ConfigError, match="writes into the same output_dir"):
        launched("--trainer.optim.lr", "1e-4")


def test_of_two_launches_at_one_moment_one_is_refused(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched()
    monkeypatch.setattr(Records, "all", lambda records: iter(()))  # neither has seen the other's record
    with pytest.raises(ConfigError, match="is being launched by somebody else"):
        launched()
    assert len(plane.calls) == 1


def test_a_run_that_has_ended_makes_way_for_the_next(plane: FakeControlPlane) -> None:
    first = launched()
    end(plane, first)
    assert launched(resume=True).record.call_id != first.record.call_id


def test_a_lock_whose_container_has_died_does_not_hold_but_a_queued_call_does(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launched()
    monkeypatch.setattr("infra.modal.records.SILENT_SECONDS", 0.0)  # as an hour later
    assert run.is_alive(), "the call waits for a machine"
    failure = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT, exception="24 h")
    plane.finish(run.record.call_id, failure)
    assert not run.is_alive()
    launched(resume=True)


def test_a_launch_that_modal_refuses_leaves_no_lock(plane: FakeControlPlane) -> None:
    plane.refused = "FunctionCreate"
    with pytest.raises(ConfigError, match=r"(?s)Modal says.*FunctionCreate is refused.*modal app list"):
        launched()
    assert not plane.calls
    assert list(runs()) == []


def test_a_secret_that_is_not_there_is_told_before_anything_is_built(plane: FakeControlPlane) -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)infra.secret.*no such Secret.*modal secret create tokens HF_TOKEN"
    ):
        launched("--infra.secret", "tokens")
    assert not plane.images


def test_an_output_dir_with_a_run_in_it_is_told_before_anything_is_built(plane: FakeControlPlane) -> None:
    plane.volume_files["re-zero-checkpoints", "run"] = ["run.json", "checkpoints"]
    flags = ("--output_dir", "run")
    with pytest.raises(
        ConfigError, match=r"(?s)output_dir.*run of the Volume re-zero-checkpoints is not empty.*--resume"
    ):
        launched(*flags)
    assert not plane.images
    assert list(runs()) == []
    assert launched(*flags, resume=True).record.call_id


def test_a_run_that_ended_before_its_first_step_is_launched_again_by_the_same_command(
    plane: FakeControlPlane,
) -> None:
    plane.volume_files["re-zero-checkpoints", "run"] = [
        "run.json",
        "config.toml",
        "metrics.jsonl",
        "rollouts",
    ]
    assert launched("--output_dir", "run").record.call_id


def test_the_command_follows_the_logs_and_ends_with_the_runs_status(
    plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_and_ended(call_id: str, function: str, item: object, retries: int) -> None:
        keep(call_id, function, item, retries)
        plane.calls[call_id].logs.append("Orchestrator Step 1: Reward=0.10\n")
        plane.finish(
            call_id, api_pb2.GenericResult(status=DONE.status, data=b"\x80\x04K\x02.")
        )  # a pickled 2

    keep = plane.add_call
    monkeypatch.setattr(plane, "add_call", told_and_ended)
    assert train.main([*REDTEAM, "--max_steps", "7"]) == 2
    printed = capsys.readouterr().out
    assert "Orchestrator Step 1: Reward=0.10" in printed
    assert "Ctrl-C leaves it running" in printed
    assert (
        "cost: 20.16 dollars an hour (4 H100 16.00, 32 cores 1.60, 256 GiB 2.56; Modal, asked now)" in printed
    )


def test_leaving_the_logs_leaves_the_run(
    plane: FakeControlPlane, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: ModalRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModalRun, "logs", interrupted)
    assert train.main(REDTEAM) == 0
    printed = capsys.readouterr().out
    (run,) = runs()
    assert f"rezero stop {run.name}" in printed
    assert "--resume" in printed
    assert run.is_alive()


def test_runs_lists_shows_and_stops(plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    run = launched()
    records = Records()
    records.update(run.record, ray_token="secret-token", ray_dashboard="https://ta-1.modal.test")
    assert cli.main(["runs"]) == 0
    listed = capsys.readouterr().out
    assert run.name in listed
    assert "queued" in listed
    assert "secret-token" not in listed
    assert cli.main(["runs", run.name]) == 0
    assert "secret-token" in capsys.readouterr().out
    assert cli.main(["stop", run.name]) == 0
    assert plane.calls[run.record.call_id].cancelled
    assert not runs()[0].is_alive()
    assert cli.main(["logs", "no-such-run"]) == 2
    assert run.name in capsys.readouterr().err


@pytest.mark.slow
def test_modal_run_is_the_same_launch(plane: FakeControlPlane) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "modal", "run", "infra/modal/train.py", "--config", "redteam.toml"),
            *("--config", "configs/overlays/modal.toml", "--infra.gpu", "H10:4"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "--infra.gpu H10:4: expected NAME:COUNT" in done.stderr
    assert "configs/redteam.toml" not in done.stderr


def test_gpus_that_are_too_small_are_refused_before_modal_is_asked(
    plane: FakeControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*REDTEAM, "--infra.gpu", "L4:4"]) == 2
    assert "of the 22 GiB of GPU 0 cannot hold the engine's weights" in capsys.readouterr().err
    assert not plane.asked
