"""Claims about the history of a run's configs: every step keeps the config that it was taken under."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.config_history import config_file, first_step_under_newest, record_config


def text_at(run: Path, step: int) -> str:
    return config_file(run, step).read_text()


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.sampled_from("abc")), min_size=1, max_size=8)
)
def test_whatever_a_run_goes_back_to_each_step_has_the_config_it_was_taken_under(
    attempts: list[tuple[int, int, str]],
) -> None:
    """Each attempt goes back to a step, changes the config or not, and takes some steps."""
    taken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        for back, steps, text in attempts:
            del taken[max(0, len(taken) - back) :]
            record_config(run, text, done=len(taken))
            taken += [text] * steps
            assert config_file(run).read_text() == text
            assert "".join(text_at(run, step) for step in range(1, len(taken) + 1)) == "".join(taken)
            first = first_step_under_newest(run)
            assert taken[first - 1 :] == [text] * len(taken[first - 1 :])
        assert not list(run.rglob("*.partial"))


def test_a_run_whose_config_never_changed_has_one_file(tmp_path: Path) -> None:
    for done in (0, 3, 7):
        record_config(tmp_path, "same", done=done)
    assert [path.name for path in tmp_path.rglob("*")] == ["config.toml"]


def test_a_run_directory_of_an_earlier_version_keeps_its_config_for_its_steps(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("old")
    assert config_file(tmp_path, 3) == config_file(tmp_path) == tmp_path / "config.toml"
    record_config(tmp_path, "new", done=5)
    assert [text_at(tmp_path, step) for step in (1, 5, 6, 99)] == ["old", "old", "new", "new"]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_crash_while_the_config_is_replaced_leaves_every_step_its_own(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writes are: the history's first entry, its new one, config.toml. The one after `after` of them fails."""
    record_config(tmp_path, "old", done=0)
    replace, count = Path.replace, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count > after:
            raise OSError("no space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    if after < 3:
        with pytest.raises(OSError, match="no space"):
            record_config(tmp_path, "new", done=4)
    else:
        record_config(tmp_path, "new", done=4)
    monkeypatch.undo()
    assert [text_at(tmp_path, step) for step in (1, 4)] == ["old", "old"]
    record_config(tmp_path, "new", done=4)
    assert [text_at(tmp_path, step) for step in (4, 5)] == ["old", "new"]
    assert config_file(tmp_path).read_text() == "new"
