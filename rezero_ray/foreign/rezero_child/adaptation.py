"""What a classic verifiers environment needs before it may be trusted with scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from .bounded_calls import BoundedCalls
from .dict_messages import tests_for_dicts
from .rubric_faults import Rules, guard_rubric, rubrics_of
from .time_limits import TimeLimits, limit_rollouts, limit_tools
from .unsupported import require_supported


@dataclass(frozen=True)
class Adaptation:
    """`tools` are those that the environment offers, as dicts; `notes` say what was changed, for people."""

    tools: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def adapt(
    environment: Any,
    *,
    dict_messages: bool | None,
    max_turns: int | None,
    limits: TimeLimits,
    zero_errors: bool = False,
    ours: bool = False,
) -> Adaptation:
    """Guard the rubric, keep the tools off the event loop, set the time limits; hand out dict messages and restore
    the stop conditions where that is needed.

    Args:
        dict_messages: None decides by the environment's own code.
        max_turns: None leaves the environment's.
        zero_errors: a reward function that fails counts as 0.0 and is counted, instead of failing its group.
        ours: a built-in one, written for both kinds of messages.

    Raises:
        ValueError: the environment is of a kind that cannot be trained on; or a limit is given, and it has nothing to
            limit by it.
    """
    notes: list[str] = []
    tools: list[dict[str, Any]] = []
    calls = BoundedCalls()
    for part in _parts(environment):
        require_supported(part)
        dicts = not ours and tests_for_dicts(_its_code(part)) if dict_messages is None else dict_messages
        if dicts := dicts and not messages_are_dicts(version("verifiers")):
            notes.append("its reward functions get messages as dicts, which its code asks for")
        guard_rubric(part.rubric, calls, Rules(limits.score, dict_messages=dicts, zero=zero_errors))
        limit_tools(part, calls, limits.tool)
        if _keep_stop_conditions(part):
            notes.append(
                "its is_completed is asked after the stop conditions of verifiers, which it leaves out"
            )
        if max_turns is not None:
            if not hasattr(part, "max_turns"):
                raise ValueError(f"max_turns = {max_turns}, and a {type(part).__name__} has no max_turns")
            part.max_turns = max_turns
        tools += _tools(part)
    if limits.tool is not None and not tools:
        raise ValueError(f"tool_timeout = {limits.tool:g}, and a {type(environment).__name__} has no tools")
    if hasattr(
        environment.rubric, "all_reward_names"
    ):  # of an EnvGroup, which keeps components of these names only
        environment.rubric.all_reward_names = sorted(
            {
                each.__name__
                for part in _parts(environment)
                for r in rubrics_of(part.rubric)
                for each in r.funcs
            }
        )
    limit_rollouts(environment, limits.rollout)
    return Adaptation(tuple(tools), tuple(dict.fromkeys(notes)))


def _parts(environment: Any) -> list[Any]:
    """The environments of a `verifiers.EnvGroup`, which scores by theirs, or the one that is given."""
    from verifiers import EnvGroup

    if not isinstance(environment, EnvGroup):
        return [environment]
    return [part for inner in environment.envs for part in _parts(inner)]


def _tools(environment: Any) -> Iterator[dict[str, Any]]:
    """verifiers calls them `oai_tools` until 0.1.10."""
    for tool in getattr(environment, "tool_defs", None) or getattr(environment, "oai_tools", None) or []:
        yield dict(tool) if isinstance(tool, dict) else tool.model_dump(exclude_none=True)


def turns_of(environment: Any) -> int:
    """Turns of a rollout at most; below 1 where the environment sets no limit."""
    own = getattr(environment, "turns_at_most", None)
    return int(getattr(environment, "max_turns", 1) if own is None else own)


def held_out_dataset(environment: Any) -> Any:
    """Its tasks for evaluation, none where it has none: `get_eval_dataset` would give those of training then."""
    build = getattr(environment, "build_eval_dataset", None)
    found = build() if build is not None else getattr(environment, "eval_dataset", None)
    return [] if found is None else found


def _its_code(environment: Any) -> Iterator[Any]:
    yield type(environment)
    yield type(getattr(environment, "parser", None))
    for rubric in rubrics_of(environment.rubric):
        yield type(rubric)
        yield type(getattr(rubric, "parser", None))
        yield from rubric.funcs


def numbers(verifiers_version: str) -> tuple[int, ...]:
    """`0.1.9.post3` -> (0, 1, 9)."""
    parts = []
    for part in verifiers_version.split(".")[:3]:
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def messages_are_dicts(verifiers_version: str) -> bool:
    """Until 0.1.10."""
    return numbers(verifiers_version) < (0, 1, 11)


def _keep_stop_conditions(environment: Any) -> bool:
    """An environment whose class overrides `is_completed` may never end when the model's call fails: verifiers'
    own conditions (an error, too many turns) come first again."""
    from verifiers import Environment

    own, theirs = type(environment).is_completed, Environment.is_completed
    if own is theirs:
        return False

    async def is_completed(state: Any, **rest: Any) -> bool:
        return bool(await theirs(environment, state, **rest) or await own(environment, state, **rest))

    environment.is_completed = is_completed
    return True
