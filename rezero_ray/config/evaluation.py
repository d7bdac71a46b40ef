"""`[orchestrator.eval]`: held-out tasks, scored while a run goes on and by `rezero eval`."""

from pydantic import Field, PositiveInt

from rezero_ray.config.table import Table


class EvalConfig(Table):
    """Evaluation on tasks that are never trained on."""

    interval: PositiveInt = Field(
        default=10, description="Steps between evaluations; the start and the last step are evaluated too."
    )
    num_examples: PositiveInt = Field(
        default=64,
        description="Held-out tasks of each environment, drawn by the seed; all where there are fewer.",
    )
    rollouts_per_example: PositiveInt = Field(
        default=4, description="Rollouts a task: the k of avg@k and pass@k."
    )
    pass_reward: float = Field(
        default=0.5, description="A rollout with at least this reward passes; pass@k: at least one of k does."
    )

    def is_due(self, version: int, last: int) -> bool:
        """Whether a run of `last` steps evaluates the policy of step `version`; 0 is the start."""
        return version % self.interval == 0 or version == last
