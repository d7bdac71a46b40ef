"""A model's configuration as Transformers reads it: config.json, with the defaults of its configuration class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.transformers_source import ConfigClass, config_class


@dataclass(frozen=True)
class Setting:
    """A value, the dotted key of config.json it stands under, and the class whose default it is, if any."""

    key: str
    value: Any
    default_of: str | None = None

    def __str__(self) -> str:
        if self.default_of is None:
            return f"config.json has {self.key} = {_shown(self.value)}"
        return f"config.json has no {self.key}, and {self.default_of} defaults to {_shown(self.value)}"


@dataclass(frozen=True)
class Architecture:
    """The language model that a config.json describes.

    Composite configurations (images, audio) keep the language model's keys under `text_config`; that table is read
    first, then the top level, then the defaults of the configuration class in the installed Transformers.
    """

    facts: ModelFacts

    @property
    def architectures(self) -> tuple[str, ...]:
        names = self.facts.config.get("architectures")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @property
    def model_type(self) -> str | None:
        """The model type of the language model."""
        for _, table in self.tables:
            if isinstance(table.get("model_type"), str):
                return str(table["model_type"])
        return None

    @cached_property
    def tables(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The tables of config.json that describe the language model, with the prefix of their keys."""
        nested = self.facts.config.get("text_config")
        inner = (("text_config.", nested),) if isinstance(nested, Mapping) else ()
        return (*inner, ("", self.facts.config))

    @cached_property
    def config_class(self) -> ConfigClass | None:
        return None if self.model_type is None else config_class(self.model_type)

    def setting(self, name: str) -> Setting | None:
        """The value of a key; None where neither config.json nor the configuration class has one."""
        for prefix, table in self.tables:
            if name in table:
                return Setting(prefix + name, table[name])
        found = self.config_class
        if found is None or name not in found.defaults:
            return None
        return Setting(self.tables[0][0] + name, found.defaults[name], found.name)

    def value(self, name: str) -> Any:
        setting = self.setting(name)
        return None if setting is None else setting.value

    def has_field(self, name: str) -> bool:
        """Whether the configuration class reads the key; True where there is no such class to ask."""
        return self.config_class is None or name in self.config_class.fields

    def settings(self) -> Iterator[Setting]:
        """Every value that describes the language model."""
        names = {name for _, table in self.tables for name in table}
        names |= set(self.config_class.defaults) if self.config_class else set()
        for name in sorted(names):
            setting = self.setting(name)
            if setting is not None:
                yield setting

    @cached_property
    def layer_kinds(self) -> tuple[str, ...]:
        """The kind of each layer as config.json lists them; empty where it does not."""
        for name in ("hybrid_override_pattern", "layers_block_type", "layer_types", "block_types"):
            kinds = self.value(name)
            if isinstance(kinds, str | list | tuple) and kinds:
                return tuple(map(str, kinds))
        return ()


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{value}"'
        case dict():
            return "{...}" if len(value) > 3 else str(value)
        case _:
            return str(value)
