"""`[infra]`: where the Ray cluster comes from. Backends are found, not listed: every folder of `infra/` with a
`table.py` is one, and the folder's name is its `kind`."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Tag

from rezero_ray.config.infra_table import InfraTable

DEFAULT_KIND = "local"


def backends() -> tuple[str, ...]:
    """The kinds there are, the default one first."""
    found = importlib.util.find_spec("infra")
    folders = found.submodule_search_locations if found else None
    kinds = {table.parent.name for folder in folders or () for table in Path(folder).glob("*/table.py")}
    return (DEFAULT_KIND, *sorted(kinds - {DEFAULT_KIND}))


def _table(kind: str) -> type[InfraTable]:
    module = importlib.import_module(f"infra.{kind}.table")
    (table,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, InfraTable) and value.__module__ == module.__name__
    )
    return table


def _kind(value: Any) -> Any:
    return value.get("kind", DEFAULT_KIND) if isinstance(value, Mapping) else getattr(value, "kind", None)


def default_infra() -> InfraTable:
    """The default backend's table with its defaults."""
    return _TABLES[DEFAULT_KIND].model_validate({})


_TABLES = {kind: _table(kind) for kind in backends()}

if TYPE_CHECKING:
    InfraConfig = InfraTable
else:
    _members = tuple(Annotated[table, Tag(kind)] for kind, table in _TABLES.items())
    InfraConfig = Annotated[Union[_members], Discriminator(_kind)]  # noqa: UP007 - made at run time
