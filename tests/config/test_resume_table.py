"""One table says which keys may change between a run and its resume: it has every key, the page shows it, and the
comparison of two configs follows it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.config.keys import all_keys, tables_of, walk
from rezero_ray.config.reference import RESUME_PAGE, resume_page
from rezero_ray.config.resume_changes import changes
from rezero_ray.config.resume_table import ROWS, Verdict, row_of
from tests.config.changed_configs import FILLED, another, changed, leaves
from tests.record_builders import make_config

ROOT = Path(__file__).parents[2]
LEAVES = leaves()
OTHER = {key: another(key) for key in LEAVES}
POOL = sorted(set(LEAVES) - {"trainer.loss.type", "infra.kind"})  # other keys are valid under them


def test_every_key_of_the_schema_has_a_row() -> None:
    for key, field in walk():
        if not tables_of(field.annotation):
            assert row_of(key).reason


def test_every_row_is_about_keys_that_exist() -> None:
    known = {key.replace(".0", ".*") for key in all_keys()}
    named = {key.removesuffix(".*") for row in ROWS for key in row.keys}
    assert named <= known


def test_a_key_without_a_row_is_an_error_and_not_allowed_silently() -> None:
    with pytest.raises(KeyError, match="momentum has no row"):
        row_of("trainer.optim.momentum")
    with pytest.raises(KeyError, match="flavour has no row"):
        row_of("orchestrator.env.3.flavour")


def test_the_page_about_resuming_is_current_and_names_every_row() -> None:
    text = (ROOT / RESUME_PAGE).read_text("utf-8")
    assert text == resume_page(), "run python -m rezero_ray.config.reference"
    assert all(f"`{key}`" in text and row.reason in text for row in ROWS for key in row.keys)


def test_what_the_checkpoint_holds_may_not_change() -> None:
    fixed = {key for row in ROWS if row.verdict is Verdict.FIXED for key in row.keys}
    lora = {f"trainer.model.lora.{name}" for name in ("rank", "alpha", "target_modules")}
    assert {"seed", "model.name", "model.dtype", "orchestrator.env", *lora} <= fixed
    assert {"orchestrator.env.*.id", "orchestrator.env.*.args.*"} <= fixed


@pytest.mark.parametrize(
    "key",
    ["max_steps", "trainer.optim.lr", "limits.group", "faults.attempts", "budget.max_usd", "infra.kind"],
)
def test_length_rates_limits_and_places_may_change(key: str) -> None:
    assert row_of(key).verdict is not Verdict.FIXED


@pytest.mark.parametrize("key", LEAVES)
def test_a_key_that_changes_alone_is_found_with_both_values(key: str) -> None:
    (found,) = changes(changed({}), changed({key: OTHER[key]}))
    if key in ("orchestrator.env.0.id", "orchestrator.env.0.name"):  # identity: another environment
        assert (found.key, found.old, found.allowed) == ("orchestrator.env", ["first", "second"], False)
        return
    assert found.key == (f"{key}.{next(iter(OTHER[key]))}" if key.endswith(".args") else key)
    assert found.row == row_of(key)
    assert found.new != found.old


@settings(max_examples=100)
@given(st.sets(st.sampled_from(POOL), max_size=6), st.sets(st.sampled_from(POOL), max_size=6))
def test_any_two_configs_differ_in_what_was_changed_and_only_the_tables_keys_are_rejected(
    of_old: set[str], of_new: set[str]
) -> None:
    old, new = (changed({key: OTHER[key] for key in keys}) for keys in (of_old, of_new))
    renamed = old.orchestrator.env[0].name != new.orchestrator.env[0].name
    differ = (of_old ^ of_new) - {"orchestrator.env.0.name"}  # a name may be that of the other's id
    if renamed:  # another environment has nothing to compare
        differ = {key for key in differ if not key.startswith("orchestrator.env.")} | {"orchestrator.env"}
    found = changes(old, new)
    rejected = {change.key for change in found if not change.allowed}
    args = "orchestrator.env.0.args"
    assert {args if key.startswith(args) else key for key in rejected} == {
        key for key in differ if row_of(key).verdict is Verdict.FIXED
    }
    assert {args if change.key.startswith(args) else change.key for change in found} == differ


def test_environments_are_compared_by_identity_and_not_by_their_place() -> None:
    one, two = {"id": "a", "args": {"n": 1}}, {"id": "b", "args": {"n": 2}}
    swapped = {"id": "b", "args": {"n": 3}}
    old = make_config(orchestrator__env=[one, two])
    assert changes(old, make_config(orchestrator__env=[two, one])) == []
    (found,) = changes(old, make_config(orchestrator__env=[swapped, one]))
    assert (found.key, found.old_key) == ("orchestrator.env.0.args.n", "orchestrator.env.1.args.n")
    assert (found.old, found.new, found.allowed) == (2, 3, False)


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), (1, True), (0, False), ("1", 1), ([1], [2]), (1, None)])
def test_an_argument_of_another_type_is_another_argument(old: Any, new: Any) -> None:
    before, after = ({"id": "a"} | ({} if v is None else {"args": {"x": v}}) for v in (old, new))
    (found,) = changes(make_config(orchestrator__env=[before]), make_config(orchestrator__env=[after]))
    assert found.key == "orchestrator.env.0.args.x"


def test_the_same_modules_in_another_order_and_the_same_path_written_otherwise_are_no_change(
    tmp_path: Path,
) -> None:
    def config(path: Path, *modules: str) -> Any:
        return make_config(model__name=str(path), trainer__model__lora__target_modules=list(modules))

    old, new = (
        config(tmp_path / "m", "q_proj", "v_proj"),
        config(tmp_path / "x" / ".." / "m", "v_proj", "q_proj"),
    )
    assert changes(old, new) == []


def test_another_loss_or_place_is_one_change_and_not_one_for_every_key_of_it() -> None:
    old = changed({})
    assert [c.key for c in changes(old, changed({"trainer.loss.type": "grpo"}))] == ["trainer.loss.type"]
    assert [c.key for c in changes(old, changed({"infra": {"kind": "ray"}}))] == ["infra.kind"]
    without = changed({}).model_dump(exclude={"wandb"})
    assert FILLED["wandb"] and [c.key for c in changes(old, type(old).model_validate(without))] == ["wandb"]
