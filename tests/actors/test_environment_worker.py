"""Claims about environments that break: never a reward. The worker is the real one, outside Ray; a script stands in
for the engine, because what is claimed is about the environment."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.environment_worker import EnvironmentWorker
from actors.rollout_engine import Completion
from actors.rollout_stream import RolloutStream
from rezero_ray.codec import decode
from rezero_ray.errors import RunError
from rezero_ray.records import Group, Prompt
from rezero_ray.reporting.step_metrics import StepLosses, step_metrics
from rezero_ray.schedule import Send
from tests.record_builders import SMOLLM2, make_config, make_group, make_rollout
from tests.reporting.test_step_metrics import REPORT, TIMES, batch

MODULE = """
import asyncio
import verifiers as vf
from datasets import Dataset

BUILT = 0

def load_environment(fault: str) -> vf.Environment:
    global BUILT
    BUILT += 1
    fresh = BUILT > 1

    async def score(completion) -> float:
        if fault in ("raises", "raises in a group"):
            raise ZeroDivisionError("no tests were run")
        if fault == "raises once" and not fresh:
            raise ZeroDivisionError("no tests were run")
        if fault == "hangs":
            await asyncio.sleep(3600)
        return {"nan": float("nan"), "none": None, "huge": 1e9, "infinite": float("inf")}.get(fault, 0.5)

    async def odd(completion):
        if fault == "exits":
            raise SystemExit(4)
        return {"list": [0.5], "text": "0.5"}.get(fault, 0.0)

    async def all_scores(completions) -> list[float]:
        if fault == "group raises":
            raise ValueError("no two alike")
        return [0.0] * len(completions)

    class Alone(vf.SingleTurnEnv):
        async def setup_state(self, state, **rest):
            if fault == "leaves":
                raise SystemExit(5)
            return await super().setup_state(state, **rest)

    if fault == "never loads":
        raise SystemExit(6)
    rows = [{"prompt": [{"role": "user", "content": f"Say {i}."}], "answer": ""} for i in range(4)]
    alone = Alone(dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[score, odd, all_scores]))
    return vf.EnvGroup([alone]) if fault.endswith("in a group") else alone
"""


class ScriptedEngine:
    """Answers every request with two tokens; `fails`: as an engine whose core has died."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    @property
    def generate(self) -> "ScriptedEngine":
        return self

    async def remote(self, version: int, ids: list[int], max_tokens: int, seed: int) -> Completion:
        if self.fails:
            raise RuntimeError("EngineDeadError")
        return Completion(token_ids=[28, 2], logprobs=[-0.5, -0.1], finish_reason="stop")


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment `fragile`, importable."""
    (tmp_path / "fragile.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("fragile", None)


def worker_of(fault: str, **changes: Any) -> Any:
    config = make_config(
        model__name=str(SMOLLM2),
        orchestrator__env=[{"id": "fragile", "args": {"fault": fault}}],
        **changes,
    )
    plain_class = EnvironmentWorker.__ray_metadata__.modified_class
    return plain_class(config, config.orchestrator.env[0])


def run(worker: Any, *, attempt: int = 1, engine: ScriptedEngine | None = None) -> Group:
    send = Send(Prompt(index=3, environment="fragile", example=1), engine=0, version=7, attempt=attempt)
    return decode(asyncio.run(worker.run_group(send, engine or ScriptedEngine())), Group)


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("fault", ["none of them", "none in a group"])
def test_a_sound_environment_gives_rollouts_of_the_version_asked_for(fault: str) -> None:
    group = run(worker_of(fault))
    assert [rollout.reward for rollout in group.rollouts] == [0.5, 0.5]
    assert group.policy_version == 7


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raises", "score raised ZeroDivisionError: no tests were run"),
        ("raises in a group", "score raised ZeroDivisionError: no tests were run"),
        ("group raises", "all_scores raised ValueError: no two alike"),
        ("none", "score returned None"),
        ("nan", "score returned nan"),
        ("huge", "the reward is 1000000000.0, outside"),
        ("list", "odd returned a list of 1"),
        ("text", "odd returned a str ('0.5')"),
        ("exits", "odd called sys.exit(4)"),
        ("leaves", "the environment's code called sys.exit(5)"),
        ("infinite", "score returned inf"),
    ],
)
def test_a_rubric_that_breaks_is_an_error_and_never_a_reward(fault: str, said: str) -> None:
    with pytest.raises(RunError, match="fragile, prompt 3") as found:
        run(worker_of(fault))
    assert found.value.kind == "environment"
    assert said in found.value.message


@pytest.mark.usefixtures("fragile")
def test_one_that_hangs_is_given_up_after_the_limit() -> None:
    with pytest.raises(RunError, match=r"no score within limits\.group = 1 s") as found:
        run(worker_of("hangs", limits__group=1.0))
    assert found.value.kind == "environment"


@pytest.mark.usefixtures("fragile")
def test_the_next_attempt_sees_a_freshly_built_environment() -> None:
    worker = worker_of("raises once")
    with pytest.raises(RunError):
        run(worker)
    assert [rollout.reward for rollout in run(worker, attempt=2).rollouts] == [0.5, 0.5]


@pytest.mark.usefixtures("fragile")
def test_an_engine_that_fails_is_the_engines_error() -> None:
    with pytest.raises(RunError, match="EngineDeadError") as found:
        run(worker_of("none of them"), engine=ScriptedEngine(fails=True))
    assert found.value.kind == "engine"


@pytest.mark.usefixtures("fragile")
def test_a_wider_reward_range_is_taken_at_its_word() -> None:
    config = make_config(
        model__name=str(SMOLLM2),
        orchestrator__env=[{"id": "fragile", "args": {"fault": "huge"}, "reward_range": (0.0, 1e10)}],
    )
    worker = EnvironmentWorker.__ray_metadata__.modified_class(config, config.orchestrator.env[0])
    assert [rollout.reward for rollout in run(worker).rollouts] == [1e9, 1e9]


class Told:
    """What the run's listener is told, in the place of the console."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.aside: list[tuple[str, str]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def put_aside(self, send: Send, kind: str, message: str) -> None:
        self.aside.append((kind, message))


class TwoTries:
    """A schedule that sends a prompt twice."""

    failures = put_aside = 0

    def failed(self, index: int) -> bool:
        self.failures += 1
        self.put_aside = self.failures // 2
        return self.put_aside > 0


class Deliveries:
    """The group of workers, of which one has answered."""

    def __init__(self, send: Send, result: RunError) -> None:
        self._answer = send, result

    def receive(self, reference: Any) -> tuple[Send, RunError]:
        return self._answer


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("fault", ["raises", "hangs", "nan", "huge"])
def test_a_fault_of_a_rubric_is_counted_in_the_metrics_and_told_and_is_no_reward(fault: str) -> None:
    with pytest.raises(RunError) as found:
        run(worker_of(fault, limits__group=0.3 if fault == "hangs" else 60.0))
    send, told = (
        Send(Prompt(index=3, environment="fragile", example=1), engine=0, version=7, attempt=1),
        Told(),
    )
    stream: Any = RolloutStream(
        TwoTries(), Deliveries(send, found.value), engines=None, config=make_config(), listener=told
    )
    for _ in range(2):
        stream._spans[3] = (0.0, 0.0)
        stream._receive("reference")
    assert told.lines == [f"prompt 3 is sent again: {found.value.message}"]
    assert told.aside == [("environment", found.value.message)]
    sound = [make_group([make_rollout([1], [2], reward=0.5)], environment="fragile")]
    losses = StepLosses(put_aside=1, faults=dict(stream.faults))
    row = step_metrics(sound, batch(sound), REPORT, TIMES, losses)
    assert (row["errors/environment"], row["errors/fragile/environment"]) == (2, 2)
    assert row["reward/fragile/mean"] == 0.5 and row["rollouts/dropped"] == 1


@pytest.mark.usefixtures("fragile")
def test_a_module_that_exits_while_a_worker_loads_it_is_an_error_and_not_the_workers_end() -> None:
    worker = worker_of("never loads")
    with pytest.raises(
        RunError, match=r"fragile: ModuleExited: loading fragile called sys.exit\(6\)"
    ) as found:
        asyncio.run(worker.sizes())
    assert found.value.kind == "environment"


@pytest.mark.usefixtures("fragile")
def test_a_reward_error_counts_as_zero_where_it_was_asked_for() -> None:
    config = make_config(
        model__name=str(SMOLLM2),
        orchestrator__env=[{"id": "fragile", "args": {"fault": "list"}, "reward_errors": "zero"}],
    )
    group = run(EnvironmentWorker.__ray_metadata__.modified_class(config, config.orchestrator.env[0]))
    assert [rollout.reward for rollout in group.rollouts] == [0.5, 0.5]
    assert all(rollout.zeroed["odd"].startswith("odd returned a list of 1") for rollout in group.rollouts)
