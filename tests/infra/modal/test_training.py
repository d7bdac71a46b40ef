"""Claims about the container's side: a real training in Modal's real container entry point, which is preempted in the
middle, called again, and stopped by its budget. Modal's control plane is a fake; the engines are not."""

import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.modal.container import newest_step
from infra.modal.launcher import ModalRun, runs
from infra.modal.rates import ASKED
from infra.modal.records import RunRecord
from rezero_ray.budget import END_SECONDS, spent_in
from rezero_ray.models.tiny import make_tiny_llama
from rezero_ray.spending import attempts_of
from tests.infra.modal.container_run import CORES, launch_small, wait_until
from tests.infra.modal.fake_control_plane import FakeControlPlane
from tests.record_builders import SMOLLM2
from tests.run.train_process import read_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

MAX_STEPS = 100_000
"""Of a fifth of a second or more each: the container is taken, and its successor stopped, long before the last."""

MAX_USD = 1.0


@dataclass
class PreemptedRun:
    """What was seen of a run whose first container was taken away after step 1, and whose second became expensive."""

    output: Path
    run: ModalRun
    result: int
    logs: str
    commits: list[tuple[str, int]]  # Volume, newest complete step in it
    at_preemption: RunRecord
    steps_at_preemption: int
    answered_at_preemption: bool
    token: str
    statuses: dict[str, int]  # of the dashboard's APIs
    dear: float  # dollars an hour of the second container

    def rows(self) -> list[dict[str, Any]]:
        return read_lines(self.output / "metrics.jsonl")

    def last(self) -> int:
        return int(self.rows()[-1]["step"])

    def run_json(self) -> dict[str, Any]:
        return dict(json.loads((self.output / "run.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def preempted(
    session_plane: FakeControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PreemptedRun]:
    plane, folder = session_plane, tmp_path_factory.mktemp("container")
    plane.forget()
    output = folder / "checkpoints" / "run"
    plane.on_commit = lambda volume: newest_step(output)
    model = make_tiny_llama(folder / "model", tokenizer_from=SMOLLM2)
    plane.prices = {"cpu_hour_cost": "0.005", "mem_gib_hour_cost": "0"}
    run = launch_small(folder, model, max_steps=str(MAX_STEPS), budget__max_usd=str(MAX_USD))
    call_id = run.record.call_id
    call = plane.calls[call_id]

    first = plane.container(call_id, folder)
    try:
        wait_until(first, call, lambda: any("Ray dashboard:" in line for line in call.logs))
        token = runs()[0].record.ray_token
        statuses = asked(plane.tunnels[0], token)
        wait_until(first, call, lambda: any(steps_committed(plane.commits)))
        first.send_signal(signal.SIGINT)  # as Modal takes the machine
        first.wait(120)
    finally:
        first.kill()
    left = runs()[0].record, newest_step(output), call.output is not None
    dear = price_of_a_short_life(output)
    plane.prices["cpu_hour_cost"] = str(dear / CORES)

    second = plane.container(call_id, folder)
    try:
        second.wait(600)
    finally:
        second.kill()
    yield PreemptedRun(
        output, runs()[0], run.result(), "".join(call.logs), plane.commits, *left, token, statuses, dear
    )


def price_of_a_short_life(output: Path) -> float:
    """Dollars an hour at which the budget lets another container start up, take some steps and end."""
    (first,) = attempts_of(output)
    assert first.start_up is not None
    seconds = 1.5 * first.start_up + 5 + END_SECONDS
    spent = spent_in([first], None).usd
    assert spent is not None
    return (MAX_USD - spent) * 3600 / seconds


def steps_committed(commits: list[tuple[str, int]]) -> list[int]:
    """The newest complete step at every commit of the Volume of checkpoints."""
    return [step for volume, step in commits if volume == "re-zero-checkpoints"]


def asked(port: int, token: str) -> dict[str, int]:
    """The HTTP status of the dashboard's APIs at the end of the tunnel, without and with the run's token."""
    statuses = {}
    for path in ("/api/v0/actors", "/api/jobs/"):
        for who, headers in (("nobody", {}), ("owner", {"Authorization": f"Bearer {token}"})):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    statuses[f"{who} {path}"] = answer.status
            except urllib.error.HTTPError as error:
                statuses[f"{who} {path}"] = error.code
    return statuses


def test_the_preempted_container_leaves_a_checkpoint_and_no_answer(preempted: PreemptedRun) -> None:
    assert 1 <= preempted.steps_at_preemption < MAX_STEPS, preempted.logs
    assert preempted.at_preemption.status == "preempted"
    assert preempted.at_preemption.step == preempted.steps_at_preemption
    assert not preempted.answered_at_preemption, "Modal calls again only where there is no result"


def test_the_next_container_resumes_and_goes_on(preempted: PreemptedRun) -> None:
    assert f"resumed after step {preempted.steps_at_preemption}" in preempted.logs
    assert preempted.steps_at_preemption < preempted.last() < MAX_STEPS
    assert [row["step"] for row in preempted.rows()] == list(range(1, preempted.last() + 1))
    assert preempted.run.record.starts == [0, preempted.steps_at_preemption]


def test_its_budget_stops_it_with_a_checkpoint_and_modal_does_not_call_again(preempted: PreemptedRun) -> None:
    assert preempted.result == 0, preempted.logs
    assert "stopped by budget.max_usd: 0." in preempted.logs
    assert "go on with --resume --budget.max_usd 2" in preempted.logs
    assert newest_step(preempted.output) == preempted.last()
    assert preempted.run_json()["status"] == "out of budget"
    assert preempted.run.record.status == "out of budget"


def test_both_containers_are_paid_for_at_the_price_that_modal_named_to_each(preempted: PreemptedRun) -> None:
    first, second = attempts_of(preempted.output)
    assert {first.rate, second.rate} == {ASKED}
    assert (first.usd_per_hour, second.usd_per_hour) == (
        pytest.approx(CORES * 0.005),
        pytest.approx(preempted.dear),
    )
    spent = spent_in([first, second], None).usd
    assert spent is not None
    assert 0.2 * MAX_USD < spent <= MAX_USD
    costs = [row["cost/usd"] for row in preempted.rows()]
    assert costs == sorted(costs)
    assert costs[-1] <= spent
    assert f"in 2 attempts ({preempted.dear:.2f} dollars an hour: {ASKED})" in preempted.logs
    assert dict(preempted.run.facts())["cost"] == f"{costs[-1]:.2f} dollars"


def test_every_checkpoint_is_committed_when_it_is_complete_and_after_the_store_that_it_names(
    preempted: PreemptedRun,
) -> None:
    committed = steps_committed(preempted.commits)
    assert committed == sorted(committed)
    assert preempted.steps_at_preemption in committed
    assert committed[-1] == preempted.last()
    for (volume, step), (before, earlier) in zip(preempted.commits[1:], preempted.commits, strict=False):
        if volume == "re-zero-checkpoints" and step > earlier:
            assert before == "re-zero-mlflow"


def test_the_dashboard_and_the_jobs_api_answer_401_without_the_token(preempted: PreemptedRun) -> None:
    assert preempted.statuses == {
        "nobody /api/v0/actors": 401,
        "owner /api/v0/actors": 200,
        "nobody /api/jobs/": 401,
        "owner /api/jobs/": 200,
    }


def test_the_token_stands_in_no_log_and_no_file_of_the_run(preempted: PreemptedRun) -> None:
    assert len(preempted.token) >= 32
    assert preempted.token not in preempted.logs
    assert "Ray dashboard: https://ta-1.modal.test" in preempted.logs
    for file in preempted.output.rglob("*"):
        assert file.is_dir() or preempted.token.encode() not in file.read_bytes(), file


def test_the_mlflow_volume_has_the_runs_metrics_and_adapter(preempted: PreemptedRun) -> None:
    import mlflow

    store = preempted.output.parents[1] / "mlflow" / preempted.run.name
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    history = client.get_metric_history(preempted.run_json()["mlflow_run_id"], "reward/mean")
    assert {metric.step for metric in history} == set(range(1, preempted.last() + 1))
    assert list(store.glob("mlruns/**/adapter_model.safetensors"))


def test_the_console_lines_are_in_the_logs(preempted: PreemptedRun) -> None:
    for step in range(1, preempted.last() + 1):
        assert re.search(rf"Orchestrator Step {step}: Reward=-?\d", preempted.logs)
