"""Claims about a step's record: what was trained on comes back, and a damaged file says where it is damaged."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rezero_ray.codec import encode
from rezero_ray.config import ConfigError
from rezero_ray.records import Group, Prompt, Rollout
from rezero_ray.step_record import StepRecord, delete_after, in_ranges, read_step, recorded_steps, write_step
from tests.record_builders import make_group, make_rollout

GROUPS = [
    make_group([make_rollout([1], [2, 3], reward=1.0), make_rollout([1], [4])], index=7),
    make_group([make_rollout([5], [6], components={"form": 0.5}, truncated=True)], index=8),
]
ADVANTAGES = [[0.5, -0.5], [0.0]]

finite = st.floats(allow_nan=False, allow_infinity=False)
single = st.floats(allow_nan=False, allow_infinity=False, width=32)
names = st.text(max_size=8)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    ids = draw(st.lists(st.integers(0, 2**17), min_size=1, max_size=8))
    length = len(ids)
    return Rollout(
        token_ids=np.array(ids, dtype=np.int32),
        logprobs=np.array(draw(st.lists(single, min_size=length, max_size=length)), dtype=np.float32),
        loss_mask=np.array(
            draw(st.lists(st.integers(0, 1), min_size=length, max_size=length)), dtype=np.uint8
        ),
        prompt_length=draw(st.integers(1, length)),
        turns=draw(st.integers(1, 5)),
        policy_version=draw(st.integers(0, 10**6)),
        reward=draw(finite),
        components=draw(st.dictionaries(names, finite, max_size=3)),
        text=draw(st.lists(st.fixed_dictionaries({"role": names, "content": st.text()}), max_size=3)),
        truncated=draw(st.booleans()),
        error=draw(st.none() | names),
    )


@st.composite
def steps(draw: st.DrawFn) -> StepRecord:
    indices = draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=4, unique=True))
    groups = [
        Group(
            prompt=Prompt(index=index, environment=draw(names), example=draw(st.integers(0, 10**6))),
            rollouts=draw(st.lists(rollouts(), min_size=1, max_size=3)),
            seconds=0.0,
        )
        for index in indices
    ]
    return StepRecord(groups=groups, advantages=[[draw(finite) for _ in group.rollouts] for group in groups])


def recorded(run: Path, step: int = 3, *, compress_above: int = 10**9) -> Path:
    return write_step(run, step, GROUPS, ADVANTAGES, compress_above=compress_above)


def complaint(run: Path, step: int = 3) -> str:
    with pytest.raises(ConfigError) as caught:
        read_step(run, step)
    return str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(record=steps(), compress_above=st.sampled_from([0, 10**9]))
def test_what_was_trained_on_comes_back_in_order(
    tmp_path: Path, record: StepRecord, compress_above: int
) -> None:
    write_step(tmp_path, 3, record.groups, record.advantages, compress_above=compress_above)
    assert encode(read_step(tmp_path, 3)) == encode(record)


def test_a_large_record_is_compressed_and_a_small_one_is_not(tmp_path: Path) -> None:
    plain = recorded(tmp_path, 3)
    assert plain == tmp_path / "rollouts" / "step_000003.jsonl"
    size = plain.stat().st_size
    assert recorded(tmp_path, 4, compress_above=size).name == "step_000004.jsonl"
    compressed = recorded(tmp_path, 5, compress_above=size - 1)
    assert compressed.name == "step_000005.jsonl.gz"
    assert gzip.decompress(compressed.read_bytes()) == plain.read_bytes()
    assert encode(read_step(tmp_path, 5)) == encode(read_step(tmp_path, 3))


@pytest.mark.parametrize("sizes", [(0, 10**9), (10**9, 0)])
def test_a_step_recorded_again_has_one_file(tmp_path: Path, sizes: tuple[int, int]) -> None:
    for size in sizes:
        path = recorded(tmp_path, compress_above=size)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("compress_above", [0, 10**9])
def test_a_crash_while_writing_leaves_the_earlier_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress_above: int
) -> None:
    before = recorded(tmp_path, compress_above=compress_above).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("os.fsync", full)
        write_step(tmp_path, 3, GROUPS[:1], ADVANTAGES[:1], compress_above=compress_above)
    assert recorded_steps(tmp_path) == [3]
    assert next((tmp_path / "rollouts").glob("step_*")).read_bytes() == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logprob_that_is_not_finite_comes_back_as_not_finite(tmp_path: Path, value: float) -> None:
    rollout = make_rollout([1], [2, 3], logprobs=[value, -1.0], components={"odd": value})
    write_step(tmp_path, 1, [make_group([rollout])], [[0.0]])
    back = read_step(tmp_path, 1).groups[0].rollouts[0]
    assert not math.isfinite(back.logprobs[1])
    assert back.logprobs[2] == -1.0
    assert not math.isfinite(back.components["odd"])


def test_half_a_surrogate_pair_in_a_text_does_not_stop_the_run(tmp_path: Path) -> None:
    rollout = make_rollout([1], [2])
    rollout.text[0]["content"] = "a\ud83dz"
    write_step(tmp_path, 1, [make_group([rollout])], [[0.0]])
    assert read_step(tmp_path, 1).groups[0].rollouts[0].text[0]["content"] == "a?z"


@pytest.mark.parametrize("compress_above", [0, 10**9])
def test_later_steps_are_deleted_plain_or_compressed(tmp_path: Path, compress_above: int) -> None:
    for step in (1, 2, 3, 1_000_000):
        recorded(tmp_path, step, compress_above=compress_above)
    delete_after(tmp_path, 2)
    assert recorded_steps(tmp_path) == [1, 2]
    assert len(list((tmp_path / "rollouts").iterdir())) == 2


def test_a_step_that_is_not_there_is_answered_by_those_that_are(tmp_path: Path) -> None:
    for step in (1, 2, 4):
        recorded(tmp_path, step)
    assert "step 3 is not recorded" in complaint(tmp_path)
    assert "1 to 2, 4" in complaint(tmp_path)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], "none"), ([5], "5"), ([1, 2, 3, 7, 9, 10], "1 to 3, 7, 9 to 10")]
)
def test_ranges_are_short(numbers: list[int], text: str) -> None:
    assert in_ranges(numbers) == text


def test_wherever_a_file_is_cut_the_line_is_named(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    whole = path.read_bytes()
    second_line = whole.index(b"\n") + 1
    for end in (second_line + 1, second_line + 40, whole.index(b"\n", second_line) - 1):
        path.write_bytes(whole[:end])
        assert f"{path}:2: is cut short" in complaint(tmp_path)


def test_wherever_a_compressed_file_is_cut_it_is_told(tmp_path: Path) -> None:
    path = recorded(tmp_path, compress_above=0)
    whole = path.read_bytes()
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        assert f"{path}:" in complaint(tmp_path)


def test_a_last_line_without_its_line_feed_is_whole(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    before = read_step(tmp_path, 3)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert encode(read_step(tmp_path, 3)) == encode(before)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "is not JSON"),
        ("[1, 2]", "is no rollout"),
        ("{}", "is no rollout: prompt is missing"),
        ('{"prompt": {"index": "1", "environment": "", "example": 0}}', "Expected `int`, got `str`"),
    ],
)
def test_a_line_that_is_no_rollout_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = recorded(tmp_path)
    path.write_text(path.read_text() + line + "\n")
    assert f"{path}:4: " in complaint(tmp_path)
    assert what in complaint(tmp_path)


def test_lists_of_different_lengths_are_no_rollout(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    path.write_text(path.read_text().replace('"loss_mask":[0,1,1]', '"loss_mask":[0,1]'))
    assert f"{path}:1: is no rollout" in complaint(tmp_path)


def test_an_empty_file_holds_no_rollout(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    path.write_bytes(b"")
    assert f"{path}: holds no rollout" in complaint(tmp_path)


def test_a_compressed_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = recorded(tmp_path, compress_above=0)
    path.write_bytes(b"plain text")
    assert f"{path}:1: cannot be read" in complaint(tmp_path)
