"""What differs between the config that a run recorded and the one it is to resume with. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.layers import TAGGED_TABLES
from rezero_ray.config.problems import shown
from rezero_ray.config.resume_table import Row, Verdict, row_of
from rezero_ray.config.schema import Config

ENVIRONMENTS = "orchestrator.env"


@dataclass(frozen=True)
class Change:
    """A key with another value. `key` is the new config's, `old_key` the recorded one's: an environment may have
    another place in the list. None stands for a value that is not set."""

    key: str
    old_key: str
    old: Any
    new: Any
    row: Row

    @property
    def allowed(self) -> bool:
        return self.row.verdict is not Verdict.FIXED

    def note(self) -> str:
        """`key = NEW, was OLD`."""
        return f"{self.key} = {value_shown(self.new)}, was {value_shown(self.old)}"


def value_shown(value: Any) -> str:
    """As `shown`, with texts and lists in full: they are to be written again. What is not set has no TOML form."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(value_shown(item) for item in value) + "]"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    return "unset" if value is None else shown(value)


def changes(old: Config, new: Config) -> list[Change]:
    """Every key whose value differs, in the order of the schema."""
    return list(_of_tables(old, new, "", ""))


def rollouts_again(found: Sequence[Change]) -> bool:
    """Whether rollouts that a checkpoint holds for later steps are to be made again."""
    return any(change.row.verdict is Verdict.AGAIN for change in found)


def same_model(one: str, other: str) -> bool:
    """The same hub id or directory, however it is written."""
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def _of_tables(old: BaseModel, new: BaseModel, prefix: str, old_prefix: str) -> Iterator[Change]:
    for name in {**type(old).model_fields, **type(new).model_fields}:
        before, after = getattr(old, name, None), getattr(new, name, None)
        key, old_key = f"{prefix}{name}", f"{old_prefix}{name}"
        tag = TAGGED_TABLES.get(tuple(key.split(".")))
        if key == ENVIRONMENTS:
            yield from _of_environments(before or [], after or [])
        elif tag and getattr(before, tag) != getattr(after, tag):  # the other keys belong to their tag
            yield _change(f"{key}.{tag}", f"{old_key}.{tag}", getattr(before, tag), getattr(after, tag))
        elif isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _of_tables(before, after, f"{key}.", f"{old_key}.")
        elif name == "args" and isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _of_arguments(before, after, f"{key}.", f"{old_key}.")
        elif not equal_values(key, before, after):
            yield _change(key, old_key, before, after)


def _of_environments(old: Sequence[EnvConfig], new: Sequence[EnvConfig]) -> Iterator[Change]:
    """Environments are compared by name: their order may change, their set may not."""
    before = {environment.name: index for index, environment in enumerate(old)}
    after = {environment.name: index for index, environment in enumerate(new)}
    if before.keys() != after.keys():
        yield _change(ENVIRONMENTS, ENVIRONMENTS, list(before), list(after))
    for name, index in after.items():
        if name in before:
            place = before[name]
            yield from _of_tables(
                old[place], new[index], f"{ENVIRONMENTS}.{index}.", f"{ENVIRONMENTS}.{place}."
            )


def _of_arguments(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str, old_prefix: str
) -> Iterator[Change]:
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if (name in old) != (name in new) or _canonical(before) != _canonical(after):
            yield _change(f"{prefix}{name}", f"{old_prefix}{name}", before, after)


def _change(key: str, old_key: str, old: Any, new: Any) -> Change:
    return Change(key, old_key, old, new, row_of(key))


def equal_values(key: str, old: Any, new: Any) -> bool:
    """Whether two values of a key mean the same."""
    if key == "trainer.model.lora.target_modules":  # a set, written as a list
        return set(old) == set(new)
    if key == "model.name":
        return same_model(old, new)
    return bool(old == new)


def _canonical(value: Any) -> str:
    """Arguments are equal where their texts are: to an environment 1, 1.0 and true are three values. The keys of a
    table have no order."""
    return json.dumps(value, sort_keys=True, default=repr)
