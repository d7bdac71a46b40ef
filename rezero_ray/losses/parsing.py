"""From a plain mapping to the typed options of a loss, with errors that name the remedy. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from rezero_ray.losses.options import OPTIONS, AnyLossOptions, SharedOptions, type_of


def parse_options(options: Mapping[str, Any] | AnyLossOptions) -> AnyLossOptions:
    """The typed options of a mapping such as `{"type": "dapo", "clip_high": 0.3}`.

    Raises:
        ValueError: unknown type, unknown option or value out of range, with the nearest and all valid names.
    """
    if isinstance(options, SharedOptions):
        return options
    if not isinstance(options, Mapping):
        raise ValueError(f"loss options must be a mapping, not {options!r}")
    name = type_of(options)
    if not isinstance(name, str) or name not in OPTIONS:
        raise ValueError(f"unknown loss type {name!r}{_nearest(name, OPTIONS)}")
    model = OPTIONS[name]
    for key in options:
        if key not in model.model_fields:
            owners = [other for other, peer in OPTIONS.items() if key in peer.model_fields]
            belongs = f" (it belongs to {', '.join(owners)})" if owners else ""
            raise ValueError(
                f"unknown option {key!r} of loss {name!r}{belongs}{_nearest(key, model.model_fields)}"
            )
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise ValueError(f"loss {name!r}: {_explained(error)}") from None


def _nearest(name: object, valid: Iterable[str]) -> str:
    """`; did you mean 'x'? valid are ...`, ready to append."""
    names = list(valid)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid are {', '.join(names)}"


def _explained(error: ValidationError) -> str:
    """Every complaint as `option = value: what is allowed`, on one line."""
    complaints = []
    for detail in error.errors(include_url=False):
        message = detail["msg"].removeprefix("Value error, ")
        key = ".".join(map(str, detail["loc"]))
        complaints.append(f"{key} = {detail['input']!r}: {message}" if key else message)
    return "; ".join(complaints)
