"""`[budget]`: what a run may cost."""

from pydantic import Field

from rezero_ray.config.table import PositiveFloat, Table


class BudgetConfig(Table):
    """The run stops with a checkpoint before it would pass a limit; all attempts of a run count together."""

    max_usd: PositiveFloat | None = Field(
        default=None,
        description="Dollars, at the backend's rate or `infra.usd_per_hour`; no limit when unset.",
    )
    max_hours: PositiveFloat | None = Field(
        default=None, description="Hours, start-up included; no limit when unset."
    )

    def hours(self, usd_per_hour: float | None) -> float | None:
        """What a run at that price may take under both limits; None where nothing limits it."""
        hours = [] if self.max_hours is None else [self.max_hours]
        if self.max_usd is not None and usd_per_hour is not None:
            hours.append(self.max_usd / usd_per_hour)
        return min(hours, default=None)
