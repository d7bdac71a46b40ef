"""Names of metrics and parameters as MLflow takes them.

MLflow takes letters, digits and `/_.- `, at most 250 of them, in a form that is its own normal path. Anything else is
escaped: a character with the code point 0x28 becomes `_x28_`, and `@` becomes `_at_`. A `_` that would begin such an
escape in the original is itself escaped (`_x5f_`), so two names never become one, and `original_name` undoes it. Only
a name that is too long then cannot be read back: its end becomes `_xhash_` and 16 hex digits of its SHA-256.
"""

import hashlib
import re

LONGEST = 250

_REFUSED = re.compile(r"[^/\w.\- ]|\A/|(?<=/)/|/\Z|(?:(?<=/)|\A)\.(?=\.?(?:/|\Z))|\A\.(?=\.)")
"""Other characters, and slashes and dots by which a name is not its own normal path."""

_LIKE_ESCAPE = re.compile(r"_(?:at|xhash|x[0-9a-f]+)")
_ESCAPE = re.compile(r"_(?:at|x[0-9a-f]+)_")


def mlflow_name(name: str) -> str:
    """The name under which MLflow has the metric `name`, which is not empty."""
    escaped = {found.start() for found in _REFUSED.finditer(name)}
    for found in _LIKE_ESCAPE.finditer(name):
        if found.end() in escaped or name[found.end() : found.end() + 1] == "_":
            escaped.add(found.start())
    encoded = "".join(_escaped(c) if i in escaped else c for i, c in enumerate(name))
    if len(encoded) <= LONGEST:
        return encoded
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{encoded[: LONGEST - 24].rstrip('/')}_xhash_{digest}"


def original_name(name: str) -> str:
    """The name that `mlflow_name` was given, unless it was too long."""
    return _ESCAPE.sub(lambda found: "@" if found[0] == "_at_" else chr(int(found[0][2:-1], 16)), name)


def _escaped(character: str) -> str:
    return "_at_" if character == "@" else f"_x{ord(character):x}_"
