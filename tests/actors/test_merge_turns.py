"""Claims about `merge_turns`: the turns of a trajectory as one sequence, every id as the engine gave it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.scored_rollout import merge_turns
from rezero_ray.records import Rollout, Turn

FIELDS: dict[str, Any] = {"policy_version": 3, "reward": 0.5, "components": {"right": 1.0}, "text": []}
IDS = st.lists(st.integers(0, 99), max_size=6)
LOGPROBS = st.floats(-20, 0, width=32)


@st.composite
def trajectories(draw: st.DrawFn) -> list[Turn]:
    """Turns of which each continues the one before it, with any text of the environment between."""
    turns, seen = [], draw(IDS.filter(bool))
    for _ in range(draw(st.integers(1, 4))):
        written = draw(IDS)
        logprobs = draw(st.lists(LOGPROBS, min_size=len(written), max_size=len(written)))
        turns.append(Turn(prompt_ids=list(seen), completion_ids=written, logprobs=logprobs))
        seen = [*seen, *written, *draw(IDS)]
    return turns


def merged(*turns: Turn) -> Rollout:
    return merge_turns(list(turns), **FIELDS)


@given(turns=trajectories())
def test_the_sequence_is_the_last_turns_and_the_mask_marks_what_the_policy_wrote(turns: list[Turn]) -> None:
    rollout = merged(*turns)
    assert rollout.token_ids.tolist() == [*turns[-1].prompt_ids, *turns[-1].completion_ids]
    assert len(rollout.token_ids) == len(rollout.logprobs) == len(rollout.loss_mask)
    at = [i for i, trained in enumerate(rollout.loss_mask) if trained]
    assert [rollout.token_ids[i] for i in at] == [i for turn in turns for i in turn.completion_ids]
    assert [rollout.logprobs[i] for i in at] == [p for turn in turns for p in turn.logprobs]
    assert all(rollout.logprobs[i] == 0 for i, trained in enumerate(rollout.loss_mask) if not trained)


@given(turns=trajectories())
def test_the_prompt_is_the_first_turns_and_the_turns_are_counted(turns: list[Turn]) -> None:
    rollout = merged(*turns)
    assert rollout.token_ids[: rollout.prompt_length].tolist() == turns[0].prompt_ids
    assert not any(rollout.loss_mask[: rollout.prompt_length])
    assert rollout.turns == len(turns)


def test_two_turns_with_the_environments_answer_between() -> None:
    rollout = merged(
        Turn(prompt_ids=[1, 2], completion_ids=[3], logprobs=[-0.1]),
        Turn(prompt_ids=[1, 2, 3, 4, 5], completion_ids=[6, 7], logprobs=[-0.2, -0.3]),
    )
    assert rollout.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert rollout.loss_mask.tolist() == [0, 0, 1, 0, 0, 1, 1]
    assert rollout.logprobs.tolist() == pytest.approx([0, 0, -0.1, 0, 0, -0.2, -0.3])
    assert (rollout.policy_version, rollout.reward, rollout.components) == (3, 0.5, {"right": 1.0})


@pytest.mark.parametrize("prompt", [[1, 2, 9, 4], [1, 2], [], [9, 2, 3]])
def test_a_turn_that_does_not_continue_the_one_before_it_is_an_error_not_a_sequence(
    prompt: list[int],
) -> None:
    first = Turn(prompt_ids=[1, 2], completion_ids=[3], logprobs=[-0.1])
    with pytest.raises(ValueError, match="does not continue"):
        merged(first, Turn(prompt_ids=prompt, completion_ids=[6], logprobs=[-0.2]))
