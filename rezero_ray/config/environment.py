"""`[[orchestrator.env]]`: one environment of a run."""

from collections.abc import Sequence
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from rezero_ray.config.table import PATH, PositiveFloat, Table

RewardRange = Annotated[
    tuple[float, float], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]


class EnvConfig(Table):
    id: str = Field(
        description="A built-in environment (`redteam-attack`, `phishing-detection`, `config-verification`, "
        "`network-logs`, `code-vulnerability`), an installed one, or `module:name` for the class or function that "
        "makes one, such as `verifiers:ReasoningGymEnv`."
    )
    name: str = Field(
        default_factory=lambda data: str(data.get("id", "")),
        description="Names this entry in metrics (`reward/<name>/mean`), records, evaluations and messages. When "
        "unset, the id; where several entries would share that name, those without one become `<id>-1`, `<id>-2` in "
        "order.",
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="Keyword arguments of the environment's load_environment, or of what `module:name` names; of a "
        "taskset of verifiers 0.4, keys of its config.",
    )
    weight: PositiveFloat = Field(
        default=1.0, description="Share of the prompts that come from here, relative to the others."
    )
    timeout: PositiveFloat | None = Field(
        default=None,
        description="Seconds a group of this environment may take, scoring included; `limits.group` when unset.",
    )
    rollout_timeout: PositiveFloat | None = Field(
        default=None,
        description="Seconds a rollout may take, its model calls and tools included, its scoring not. Longer is an "
        "error of the environment, here and with the next two; no limit but the group's when unset.",
    )
    tool_timeout: PositiveFloat | None = Field(
        default=None, description="Seconds one call of a tool may take. Not for verifiers 0.4 (v1)."
    )
    score_timeout: PositiveFloat | None = Field(
        default=None,
        description="Seconds one call of a reward function may take; under verifiers 0.4 (v1) all of a rollout's.",
    )
    max_turns: PositiveInt | None = Field(
        default=None, description="Turns of a rollout, at most; the environment's own limit when unset."
    )
    requirements: list[str] = Field(
        default=[],
        description="Lines of a requirements file. Where there are any, the environment lives in an interpreter of "
        "its own with these packages, verifiers among them, made once with uv and kept in "
        "~/.cache/rezero_ray/environments (or REZERO_ENVIRONMENTS_CACHE).",
    )
    python: Annotated[str | None, PATH] = Field(
        default=None,
        description="With `requirements`: the Python that their interpreter is made with, a version or a path; ours "
        "when unset. Alone: an interpreter that has the environment and its verifiers.",
    )
    dict_messages: bool | None = Field(
        default=None,
        description="Whether reward functions get messages as plain dicts under verifiers 0.1.11 to 0.3; when unset, "
        "where the environment's own code asks for dicts.",
    )
    raw_reward_range: RewardRange | None = Field(
        default=None,
        description="Lowest and highest reward that the environment gives, mapped linearly to [-1, 1]. When unset, "
        "rewards are taken as they come; `intertwine/sv-env-*` have theirs built in.",
    )
    reward_range: RewardRange = Field(
        default=(-1.0, 1.0),
        description="Lowest and highest reward. One outside is an error of the environment, never trained on.",
    )
    reward_errors: Literal["raise", "zero"] = Field(
        default="raise",
        description="A reward function that raises, or returns something that is no finite number: `raise` makes it "
        "an error of the environment; `zero` lets that function count as 0.0, as verifiers does, for public "
        "environments that depend on it. The rollouts concerned are counted in every report. One that exceeds "
        "`score_timeout` is an error in either case.",
    )


def named(environments: Sequence[EnvConfig]) -> list[EnvConfig]:
    """The entries with a name each. A name that was written stays; an entry without one is called by its id, or
    `<id>-1`, `<id>-2` in order where that name is written elsewhere or several entries would share it."""
    wanted = [env.name for env in environments]
    taken = set(wanted)
    found = []
    for env in environments:
        if "name" not in env.model_fields_set and wanted.count(env.id) > 1:
            name = next(name for n in count(1) if (name := f"{env.id}-{n}") not in taken)
            taken.add(name)
            env = env.model_copy(update={"name": name})
        found.append(env)
    return found


def chosen(environments: Sequence[EnvConfig], wanted: str) -> list[int]:
    """Indices of the entries that `--env` means: the one of that name, or else all of that id."""
    by_name = [index for index, env in enumerate(environments) if env.name == wanted]
    return by_name or [index for index, env in enumerate(environments) if env.id == wanted]
