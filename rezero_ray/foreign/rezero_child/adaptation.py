"""What a classic verifiers environment needs before it may be trusted with scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from .dict_messages import tests_for_dicts
from .rubric_faults import RubricFaults, guard_rubric, rubrics_of


@dataclass(frozen=True)
class Adaptation:
    """`faults` is what its reward functions raise from now on; `notes` say what was changed, for people."""

    faults: RubricFaults
    notes: tuple[str, ...]


def adapt(
    environment: Any, *, dict_messages: bool | None, max_turns: int | None, ours: bool = False
) -> Adaptation:
    """Guard the rubric; hand out dict messages and restore the stop conditions where that is needed.

    Args:
        dict_messages: None decides by the environment's own code.
        max_turns: None leaves the environment's.
        ours: a built-in one, written for both kinds of messages.

    Raises:
        ValueError: `max_turns` is given, and the environment has no turns to limit.
    """
    notes = []
    if dict_messages is None:
        dict_messages = not ours and tests_for_dicts(_its_code(environment))
    dict_messages = dict_messages and not messages_are_dicts(version("verifiers"))
    if dict_messages:
        notes.append("its reward functions get messages as dicts, which its code asks for")
    faults = guard_rubric(environment.rubric, dict_messages=dict_messages)
    if _keep_stop_conditions(environment):
        notes.append("its is_completed is asked after the stop conditions of verifiers, which it leaves out")
    if max_turns is not None:
        if not hasattr(environment, "max_turns"):
            raise ValueError(f"max_turns = {max_turns}, and a {type(environment).__name__} has no max_turns")
        environment.max_turns = max_turns
    return Adaptation(faults, tuple(notes))


def held_out_dataset(environment: Any) -> Any:
    """Its tasks for evaluation, none where it has none: `get_eval_dataset` would give those of training then."""
    build = getattr(environment, "build_eval_dataset", None)
    found = build() if build is not None else environment.eval_dataset
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
