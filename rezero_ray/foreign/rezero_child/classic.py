"""Adapter of classic verifiers environments, 0.1.10 to 0.3: what a module's `load_environment` gives, or a class."""

import asyncio
import importlib
from typing import Any

import verifiers as vf

from .adaptation import adapt, held_out_dataset, messages_are_dicts, turns_of
from .contained import exits_contained
from .examples import described, solution_function, solution_texts, written_answer
from .group_watch import ROLLOUT, GroupWatch, watched_group
from .model_call import AskPolicy, plain_message
from .rubric_faults import rubrics_of
from .time_limits import TimeLimits


class ClassicEnvironment:
    """One built environment. `facts` are for the one who asked to load it."""

    def __init__(
        self,
        module: str,
        loader: str,
        args: dict[str, Any],
        *,
        max_turns: int | None,
        dict_messages: bool | None,
        limits: TimeLimits,
        zero_errors: bool = False,
    ) -> None:
        with exits_contained(f"loading {module}"):
            self._module = importlib.import_module(module)
            self._environment = getattr(self._module, loader)(**args)
            self._dataset = self._environment.get_dataset()
            self._held_out = held_out_dataset(self._environment)
        adaptation = adapt(
            self._environment,
            dict_messages=dict_messages,
            max_turns=max_turns,
            limits=limits,
            zero_errors=zero_errors,
        )
        self.facts: dict[str, Any] = {
            "size": len(self._dataset),
            "held_out": len(self._held_out),
            "class": type(self._environment).__name__,
            "turns": turns_of(self._environment),
            "tools": list(adaptation.tools),
            "notes": list(adaptation.notes),
            **_company(self._environment),
        }

    def prompts(self) -> list[Any]:
        return list(self._dataset["prompt"])

    def describe(self) -> dict[str, Any]:
        """`described` of the tasks, reward functions with their weights, where `example` takes a solution from."""
        function = solution_function(self._module)
        single = isinstance(self._environment, vf.SingleTurnEnv) and "answer" in self._dataset.column_names
        components = [
            [getattr(reward, "__name__", type(reward).__name__), float(weight)]
            for rubric in rubrics_of(self._environment.rubric)
            for reward, weight in zip(rubric.funcs, rubric.weights, strict=True)
        ]
        return {
            **described(self._dataset, self._held_out),
            "components": components,
            "solution": function.__name__ if function else "the answer column" if single else None,
        }

    def example(self, number: int) -> dict[str, Any]:
        """A training task's prompt, and the texts of a solution (None where none is known)."""
        row = self._dataset[number]
        solution = solution_texts(self._module, row.get("info"))
        if solution is None and isinstance(self._environment, vf.SingleTurnEnv) and row.get("answer"):
            solution = [written_answer(getattr(self._environment, "parser", None), str(row["answer"]))]
        return {"prompt": row["prompt"], "solution": solution}

    async def run_group(
        self, example: int, held_out: bool, rollouts: int, ask: AskPolicy
    ) -> list[dict[str, Any]]:
        run = self._with_openai if messages_are_dicts(vf.__version__) else self._with_client
        row = (self._held_out if held_out else self._dataset)[example]
        with watched_group() as watch:
            outcomes = await run(row, rollouts, ask)
        return [self._record(*outcome, number, watch) for number, outcome in enumerate(outcomes)]

    async def _with_openai(self, row: Any, rollouts: int, ask: AskPolicy) -> list[tuple[Any, list[int]]]:
        """What `run_group` of 0.1.10 does, with a client for each rollout: a request does not say whose it is."""
        from .openai_client import policy_client

        clients = [policy_client(ask, number) for number in range(rollouts)]
        try:
            states = await asyncio.gather(
                *(
                    self._environment.rollout({**row, ROLLOUT: number}, client, "policy", {})
                    for number, client in enumerate(clients)
                )
            )
            await self._environment.rubric.score_group(list(states))
        finally:
            await asyncio.gather(*(client.close() for client in clients))
        return [(state, [int(step["response"].id) for step in state["trajectory"]]) for state in states]

    async def _with_client(self, row: Any, rollouts: int, ask: AskPolicy) -> list[tuple[Any, list[int]]]:
        from .verifiers_client import PolicyClient

        client = PolicyClient(ask)
        rows = [{**row, ROLLOUT: number} for number in range(rollouts)]
        outputs = await self._environment.run_group(rows, client, "policy", {}, state_columns=["trajectory"])
        return [
            (output, [client.calls[number, turn] for turn in range(len(output["trajectory"]))])
            for number, output in enumerate(outputs)
        ]

    def _record(self, outcome: Any, calls: list[int], number: int, watch: GroupWatch) -> dict[str, Any]:
        """A rollout as plain data, with the faults of its group and the seconds that scoring it took."""
        error = outcome.get("error")
        return {
            "reward": outcome.get("reward"),
            "metrics": dict(outcome.get("metrics") or {}),
            "error": watch.error(_text(error) if error else None),
            "zeroed": watch.zeroed.get(number, {}),
            "scoring": watch.scoring,
            "completion": [plain_message(message) for message in outcome.get("completion") or []],
            "truncated": bool(outcome.get("is_truncated")),
            "calls": calls,
        }

    async def close(self) -> None:
        """Nothing is held open between groups."""


def _company(environment: Any) -> dict[str, Any]:
    """Whether another model than the policy takes part, and what is wrong with its endpoint if something is."""
    ask = getattr(environment, "unreachable", None)
    return {
        "other_model": bool(getattr(environment, "other_model", False)),
        "unreachable": ask() if ask is not None else None,
    }


def _text(error: Any) -> str:
    if not isinstance(error, BaseException):
        return str(error)
    cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
    return f"{type(error).__name__}: {error}{cause}"
