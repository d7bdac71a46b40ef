"""What all tables of the dialect have in common, and the bounds of their values."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PATH = "path"
"""Marks a field that may be a path: `Annotated[str, PATH]`. A leading `~` is expanded (`rezero_ray.config.home`)."""

PathText = Annotated[str, PATH]

NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Table(BaseModel):
    """A TOML table: unknown keys are errors, values keep their types, nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )
