"""Adapter of verifiers v1 (0.4): a package that exports a taskset, and an `Env` of its own where it has one.

An episode is a rollout. The one trainable agent's trace becomes it; other agents (a simulated user, a judge) may play
along, and ask the same policy.
"""

import asyncio
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.configs.agent import agent_config_fields
from verifiers.v1.configs.client import EvalClientConfig

from .contained import contained, exits_contained
from .examples import described
from .group_watch import watched_group
from .model_call import Answer, AskPolicy, CallFailed, plain_message
from .time_limits import TimeLimits
from .unsupported import require_supported_v1
from .v1_endpoint import KEY_VARIABLE, PolicyEndpoint
from .v1_harness import HARNESS_ID
from .v1_rewards import guard_task

MOST_TASKS = 10_000
"""Taken of a taskset without an end."""


class V1Environment:
    """One built environment. Its traces' model calls are told apart by the trace's id."""

    def __init__(
        self,
        env_id: str,
        args: dict[str, Any],
        *,
        max_turns: int | None,
        limits: TimeLimits,
        zero_errors: bool = False,
    ) -> None:
        if ":" in env_id:
            raise ValueError(f"{env_id} names a class; under verifiers 0.4 an id is the name of a taskset")
        if limits.tool is not None:
            raise ValueError(f"tool_timeout = {limits.tool:g}: verifiers v1 has its tools in other processes")
        self.notes: list[str] = []
        self._roles: list[str] = []
        self._conversing: list[str] = []  # roles whose harness is ours
        self._limits = limits
        with exits_contained(f"loading {env_id}"):
            self._environment = vf.load_environment(self._config(env_id, args, max_turns))
            require_supported_v1(self._environment, self._roles, self._conversing)
            taskset = self._environment.taskset
            self._tasks = list(taskset if taskset.bounded else islice(taskset, MOST_TASKS))
        for task in self._tasks:
            guard_task(task, zero=zero_errors)
        if not taskset.bounded:
            self.notes.append(f"its taskset has no end: the first {MOST_TASKS} tasks are taken")
        self._rollouts: dict[str, tuple[int, AskPolicy]] = {}
        self._calls: dict[str, list[Answer]] = {}
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._context: Any = None
        self.facts: dict[str, Any] = {
            "size": len(self._tasks),
            "held_out": 0,
            "class": type(self._environment).__name__,
            "turns": max_turns or 1,
            "tools": [],
            "notes": self.notes,
            "other_model": False,
            "unreachable": None,
        }

    def _config(self, env_id: str, args: dict[str, Any], max_turns: int | None) -> Any:
        """`args` are keys of the taskset's config. Agents without a harness of their own get ours, and every agent
        runs in this machine's processes, unless the environment's config says otherwise."""
        config = vf.resolve_env_config({"taskset": {"id": env_id, **args}})
        ours = []
        for role, agent in agent_config_fields(config).items():
            changes: dict[str, Any] = {}
            if config.agent_harnesses()[role].id in ("bash", "null"):
                changes["harness"] = {"id": HARNESS_ID}
            if "runtime" not in agent.model_fields_set:
                changes["runtime"] = {"type": "subprocess"}
            if max_turns is not None:
                changes["max_turns"] = max_turns
            stages = {"rollout": self._limits.rollout, "scoring": self._limits.score}
            bounds = {stage: limit for stage, limit in stages.items() if limit is not None}
            if bounds:
                changes["timeout"] = {**agent.timeout.model_dump(exclude_unset=True), **bounds}
            if "harness" in changes:
                ours.append(role)
            changed = type(agent).model_validate({**agent.model_dump(exclude_unset=True), **changes})
            setattr(config, role, changed)
            self._roles.append(role)
        self._conversing = ours
        if ours:
            self.notes.append(f"agents without a harness of their own converse in process: {', '.join(ours)}")
        return config

    def prompts(self) -> list[Any]:
        return [self._prompt(task) for task in self._tasks]

    def _prompt(self, task: Any) -> list[dict[str, Any]]:
        data = task.data
        system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
        prompt = data.prompt or ""
        if isinstance(prompt, str):
            return [*system, {"role": "user", "content": prompt}]
        return [*system, *(plain_message(message) for message in prompt)]

    def describe(self) -> dict[str, Any]:
        """As `ClassicEnvironment.describe`: v1 has one taskset, whose tasks name neither weights nor solutions."""
        tasks = [
            {"prompt": self._prompt(task), "info": task.data.model_dump(mode="json")} for task in self._tasks
        ]
        return {**described(tasks, []), "components": [], "solution": None}

    def example(self, number: int) -> dict[str, Any]:
        return {"prompt": self._prompt(self._tasks[number]), "solution": None}

    async def run_group(
        self, example: int, held_out: bool, rollouts: int, ask: AskPolicy
    ) -> list[dict[str, Any]]:
        if held_out:
            raise ValueError("a taskset of verifiers v1 has no held-out tasks")
        await self._open()
        task = self._tasks[example]
        return list(await asyncio.gather(*(self._episode(task, number, ask) for number in range(rollouts))))

    async def _open(self) -> None:
        async with self._opening:
            if self._context is not None:
                return
            endpoint = PolicyEndpoint(self._answer)
            await endpoint.start()
            self._stack.push_async_callback(endpoint.close)
            await self._stack.enter_async_context(self._environment.serving())
            client = EvalClientConfig(base_url=endpoint.url, api_key_var=KEY_VARIABLE)
            self._context = vf.ModelContext(model="policy", client=client)

    async def _answer(self, trace: str, messages: list[dict[str, Any]], tools: list[Any]) -> Answer:
        if trace not in self._rollouts:
            raise CallFailed(f"no rollout has the trace {trace!r}")
        rollout, ask = self._rollouts[trace]
        answer = await ask(rollout, messages, tools)
        self._calls[trace].append(answer)
        return answer

    async def _episode(self, task: Any, number: int, ask: AskPolicy) -> dict[str, Any]:
        minted: list[str] = []

        def on_trace(trace: Any) -> None:
            minted.append(trace.id)
            self._rollouts[trace.id], self._calls[trace.id] = (number, ask), []

        try:
            with watched_group() as watch:
                episode = await contained(
                    self._environment.run_episode(task, self._context, on_trace=on_trace)
                )
            return {**self._record(episode), "zeroed": watch.zeroed.get(0, {})}
        finally:
            for trace in minted:
                del self._rollouts[trace], self._calls[trace]

    def _record(self, episode: Any) -> dict[str, Any]:
        trained = [trace for trace in episode.traces if trace.agent.trainable]
        error = self._fault(episode, trained)
        if error is not None:
            return {"reward": None, "metrics": {}, "error": error, "completion": [], "calls": []}
        trace = trained[0]
        answers = self._calls[trace.id]
        first = next((i for i, node in enumerate(trace.nodes) if node.sampled), 0)
        return {
            "reward": trace.reward,
            "metrics": {
                **{name: reward.score for name, reward in trace.rewards.items()},
                **{name: value for name, value in trace.metrics.items() if value is not None},
            },
            "error": None,
            "completion": [plain_message(node.message) for node in trace.nodes[first:]],
            "truncated": trace.is_truncated or trace.is_timeout or any(each.overlong for each in answers),
            "calls": [each.call for each in answers if not each.overlong],
        }

    def _fault(self, episode: Any, trained: list[Any]) -> str | None:
        """Why no reward may come of an episode; what took too long first, because the rest may follow from it."""
        for trace in episode.traces:
            if (overran := self._overran(trace)) is not None:
                return overran
        errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
        if errors or not episode.ok:
            return "; ".join(f"{each.type}: {each.message}" for each in errors) or "the episode is not ok"
        if len(trained) != 1:
            return f"{len(trained)} agents are to be trained, and a rollout has one"
        if not trained[0].rewards or any(reward is None for reward in trained[0].rewards.values()):
            return "the task gave no reward"
        calls = len(self._calls[trained[0].id])
        if trained[0].num_turns != calls:
            return f"{calls} model calls made {trained[0].num_turns} turns"
        return None

    def _overran(self, trace: Any) -> str | None:
        """What took too long, as an error. An agent out of the time that its own config gives it is scored."""
        rollout, score = self._limits.rollout, self._limits.score
        if not trace.is_timeout or (trace.stop_condition == "agent_timeout" and rollout is None):
            return None
        if trace.stop_condition == "agent_timeout":
            return f"a rollout took longer than rollout_timeout = {rollout:g} s"
        if trace.stop_condition == "scoring_timeout" and score is not None:
            return f"scoring took longer than score_timeout = {score:g} s"
        return f"the episode ended with {trace.stop_condition}"

    async def close(self) -> None:
        await self._stack.aclose()
