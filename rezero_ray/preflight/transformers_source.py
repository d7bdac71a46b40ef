"""What the installed Transformers knows of a model type, read from its source: importing it takes seconds.

Everything is None, or empty, where Transformers is not installed or keeps it elsewhere.
"""

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_UPDATE = re.compile(r"^(\w+)\.update\(\n(.*?)^\)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class ConfigClass:
    """A model type's configuration class: its name and the defaults of its fields, where they are constants.

    `fields` has every field's name, also those whose default is computed.
    """

    name: str
    defaults: Mapping[str, object]
    fields: frozenset[str]


@cache
def model_types() -> Mapping[str, str]:
    """Model type -> name of its configuration class."""
    found = _table("auto_mappings.py", "CONFIG_MAPPING_NAMES")
    return found | _updates("CONFIG_MAPPING_NAMES") | ({"gpt-sw3": "GPT2Config"} if found else {})


@cache
def causal_classes() -> Mapping[str, str]:
    """Model type -> the class that `AutoModelForCausalLM` makes of it."""
    return _table("modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")


@cache
def config_class(model_type: str) -> ConfigClass | None:
    """The configuration class of a model type."""
    name = model_types().get(model_type)
    root = _root()
    if name is None or root is None:
        return None
    special = _table("auto_mappings.py", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
    special |= _updates("SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
    module = special.get(model_type, model_type.replace("-", "_"))
    classes = _classes(root / "models" / module)
    if name not in classes:
        return None
    fields = {
        field: value for node in reversed(list(_ancestors(name, classes))) for field, value in _fields(node)
    }
    constants = {field: value.value for field, value in fields.items() if isinstance(value, ast.Constant)}
    return ConfigClass(name, constants, frozenset(fields))


def _ancestors(name: str, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """The class and those of the same module that it derives from."""
    node = classes.get(name)
    if node is not None:
        yield node
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id != name:
                yield from _ancestors(base.id, classes)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None]]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement.value


def _classes(folder: Path) -> dict[str, ast.ClassDef]:
    classes: dict[str, ast.ClassDef] = {}
    for file in folder.glob("configuration_*.py"):
        tree = _parsed(file)
        classes |= {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return classes


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module(body=[], type_ignores=[])


@cache
def _root() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def _text(file: str) -> str:
    root = _root()
    try:
        return "" if root is None else (root / "models" / "auto" / file).read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _table(file: str, name: str) -> dict[str, str]:
    """An `OrderedDict([...])` of the file. Only its own lines are parsed: the whole file takes 0.1 s."""
    found = re.search(rf"^{name} = OrderedDict\(\n(.*?)^\)", _text(file), re.MULTILINE | re.DOTALL)
    if found is None:
        return {}
    try:
        pairs = ast.literal_eval(found[1].strip())
    except (ValueError, SyntaxError):
        return {}
    return {str(key): str(value[0] if isinstance(value, tuple) else value) for key, value in pairs}


def _updates(name: str) -> dict[str, str]:
    """What configuration_auto.py adds to a table of auto_mappings.py."""
    updates: dict[str, str] = {}
    for table, body in _UPDATE.findall(_text("configuration_auto.py")):
        if table == name:
            updates |= ast.literal_eval(body.strip())
    return updates
