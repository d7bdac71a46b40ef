"""One line of metrics.jsonl: the contract's keys, out of a step's records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

import msgspec

from rezero_ray.batch import TrainingBatch
from rezero_ray.records import Group, StepReport

FAULTS = ("environment", "engine", "learner", "cluster")


class StepTimes(msgspec.Struct, frozen=True):
    """Wall seconds. `step`: since the step before. `rollout`: from the first group of the step begun to the last
    finished, part of it in earlier steps where rollouts and training overlap. `wait`: the learner had no batch."""

    step: float
    rollout: float
    wait: float
    train: float
    sync: float


class StepLosses(msgspec.Struct, frozen=True):
    """What a step had to do without: prompts put aside, stragglers dropped, groups replaced for want of signal, and
    faults by kind and by `environment/kind`."""

    put_aside: int = 0
    dropped: int = 0
    resampled: int = 0
    faults: Mapping[str, int] = msgspec.field(default_factory=dict)


def step_metrics(
    groups: Sequence[Group],
    batch: TrainingBatch,
    report: StepReport,
    times: StepTimes,
    losses: StepLosses,
) -> dict[str, float | int]:
    """Metrics of one step.

    Args:
        groups: of the step.
        batch: what was trained on.
        report: the learner's.
        times: wall seconds.
        losses: what did not make it into the step.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    rewards = [rollout.reward for rollout in rollouts]
    completion_tokens = batch.normalizers["tokens"]
    prompt_tokens = sum(len(r.token_ids) for r in rollouts) - completion_tokens
    staleness = [report.step - 1 - r.policy_version for r in rollouts]
    row: dict[str, float | int] = {
        "step": report.step,
        "policy_version": report.step,
        "reward/mean": fmean(rewards),
        "reward/std": pstdev(rewards),
        "loss": report.loss,
        "entropy": report.metrics["entropy"],
        "mismatch_kl": report.metrics["mismatch_kl"],
        "grad_norm": report.grad_norm,
        "lr": report.lr,
        "tokens/prompt": prompt_tokens,
        "tokens/completion": completion_tokens,
        "time/step": times.step,
        "time/rollout": times.rollout,
        "time/wait": times.wait,
        "time/train": times.train,
        "time/sync": times.sync,
        "throughput/tokens_per_s": completion_tokens / times.step,
        "staleness/mean": fmean(staleness),
        "staleness/max": max(staleness),
        "rollouts/trained": len(rollouts),
        "rollouts/computed": batch.computed_sequences,
        "micro_batches": report.micro_batches,
        "rollouts/dropped": (losses.put_aside + losses.dropped) * len(batch.advantages[0]),
        "rollouts/resampled": losses.resampled * len(batch.advantages[0]),
        "rollouts/truncated": sum(r.truncated for r in rollouts),
        "rollouts/turns": fmean(r.turns for r in rollouts),
    }
    row |= {f"errors/{kind}": losses.faults.get(kind, 0) for kind in FAULTS}
    row |= {f"errors/{name}": count for name, count in losses.faults.items()}
    row["errors/zeroed"] = _zeroed(groups)
    with_signal = {
        id(group): any(advantages) for group, advantages in zip(groups, batch.advantages, strict=True)
    }
    row["reward/signal"] = fmean(with_signal.values())
    for name in sorted({group.prompt.environment for group in groups}):
        own = [group for group in groups if group.prompt.environment == name]
        scoring = [group.scoring for group in own if group.scoring is not None]
        row[f"time/{name}/group"] = fmean(group.seconds for group in own)
        if scoring:
            row[f"time/{name}/scoring"] = fmean(scoring)
        row.setdefault(f"errors/{name}/environment", 0)
        row[f"errors/{name}/zeroed"] = _zeroed(own)
        of_environment = [r for g in own for r in g.rollouts]
        counts = Counter(component for r in of_environment for component in r.components)
        for component in sorted(counts):
            row[f"reward/{name}/{component}"] = fmean(
                r.components.get(component, 0.0) for r in of_environment
            )
        row[f"reward/{name}/mean"] = fmean(r.reward for r in of_environment)  # wins over a component `mean`
        row[f"reward/{name}/signal"] = fmean(with_signal[id(group)] for group in own)
    row |= {f"loss/{name}": value for name, value in report.metrics.items() if name not in row}
    return row


def _zeroed(groups: Sequence[Group]) -> int:
    """Rollouts with a reward function that failed and counts as 0.0."""
    return sum(bool(rollout.zeroed) for group in groups for rollout in group.rollouts)
