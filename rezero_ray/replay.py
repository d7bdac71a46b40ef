"""`rezero replay RUN --step N`: take a recorded step again, in one process, and compare.

The state before the step is that of the newest whole checkpoint before it, or of the seeded start, and the
recorded steps behind that, each under the config that was in force at it. No rollout engine and no Ray: the
recorded ids and logprobs are what the learner sees.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rezero_ray.config import Config, ConfigError, Origin, Problem
from rezero_ray.config.problems import shown
from rezero_ray.losses.options import OPTIONS
from rezero_ray.preflight.machine import Device, this_machine
from rezero_ray.preflight.model import examine_model
from rezero_ray.recorded_run import RecordedRun
from rezero_ray.records import StepReport
from rezero_ray.reporting.comparison_table import print_comparison
from rezero_ray.step_comparison import StepComparison, compare_step, reported
from rezero_ray.step_record import StepRecord, in_ranges, recorded_steps

if TYPE_CHECKING:
    from actors.deepspeed_learner import DeepSpeedLearner
    from rezero_ray.checkpoint import Checkpoint

AGREES, DIFFERS = 0, 1

TOLERANCE = 1e-3
"""Relative. Sums in another order move an fp32 step by less; another reward or loss moves it by more."""


class Replay(msgspec.Struct, frozen=True):
    """The replayed steps up to the one asked for; `other` is what another loss gives for that one, by name."""

    start: int
    comparisons: list[StepComparison]
    other: dict[str, float] | None


def main(argv: Sequence[str]) -> int:
    """Replays, prints the comparison; returns 0 where all agrees, 1 where something differs.

    Raises:
        ConfigError: there is no such run or step, a record is damaged, or the run does not fit this machine.
    """
    options = _parser().parse_args(argv)
    run = RecordedRun(options.run)
    run.step(options.step)
    device = _device_here(run, options.step)
    start, passed_over = _checkpoint_before(run, options.step)
    for line in passed_over:
        print(f"checkpoint passed over: {line}", file=sys.stderr)
    with _lone_rank(device) as make_learner:
        replay = _replay(run, make_learner, start, options.step, options.loss)
    print_comparison(replay.comparisons, replay.start, options.tolerance, options.loss, replay.other)
    return DIFFERS if any(step.differing(options.tolerance) for step in replay.comparisons) else AGREES


def _replay(
    run: RecordedRun,
    make_learner: "Callable[[Config], DeepSpeedLearner]",
    start: "Checkpoint | None",
    last: int,
    loss: str | None,
) -> Replay:
    """Steps behind `start` up to `last`, compared one by one; `last` also with another loss.

    Where the run resumed with another config, a learner with that config takes over the state, as it did then.
    """
    first = start.run.step + 1 if start else 1
    config = run.request(first).config
    learner = make_learner(config)
    if start:
        try:
            learner.load_state(start.learner)
        except ValueError as error:
            raise _wrong(
                run, f"the checkpoint of step {start.run.step} is of another config.toml: {error}"
            ) from error
    comparisons: list[StepComparison] = []
    other = None
    for step in range(first, last + 1):
        print(f"replaying step {step} of {first} to {last}", file=sys.stderr)
        if (changed := run.request(step).config) != config:
            state = learner.state()
            assert state is not None, "of rank 0"
            config, learner = changed, make_learner(changed)
            learner.load_state(state)
        record = run.step(step)
        before = learner.state() if loss is not None and step == last else None
        report, advantages = _take(learner, record, config, step)
        limit = config.trust.max_mismatch_kl
        comparisons.append(compare_step(run.metrics[step], record, report, advantages, max_mismatch_kl=limit))
        if before is not None and loss is not None:
            of_loss = _with_loss(config, loss)
            learner.load_state(before)
            learner.use_loss(of_loss)
            other = reported(_take(learner, record, of_loss, step)[0])
    return Replay(start=first - 1, comparisons=comparisons, other=other)


def _take(
    learner: "DeepSpeedLearner", record: StepRecord, config: Config, step: int
) -> tuple[StepReport, list[list[float]]]:
    """One optimizer step on recorded rollouts: what the learner reports, and each rollout's advantage."""
    from rezero_ray.batch import build_batch, micro_batches

    batch = build_batch(record.groups, config, ranks=1)
    return learner.step(micro_batches(batch.trees[0]), batch.normalizers, step), batch.advantages


def _with_loss(config: Config, loss: str) -> Config:
    """The configuration with another loss, whose options have their defaults."""
    trainer = config.trainer.model_copy(update={"loss": OPTIONS[loss]()})
    return config.model_copy(update={"trainer": trainer})


def _device_here(run: RecordedRun, step: int) -> Device:
    """The device that the run's config at `step` means on this machine.

    Raises:
        ConfigError: its model or its GPU is not here.
    """
    request, machine = run.request(step), this_machine()
    config, device = request.config, machine.device(request.config)
    _, found = examine_model(config, must_be_here=True)
    if device == "cuda" and not machine.gpu_gib:
        what, remedy = "this machine has no GPU that can be seen", "replay it where there is one"
        found.problems.append(Problem("device", what, remedy, shown(config.device)))
    with request.locating():
        if found.problems:
            raise ConfigError(found.problems)
    return device


def _checkpoint_before(run: RecordedRun, step: int) -> "tuple[Checkpoint | None, list[str]]":
    """The checkpoint to begin with (none: the start of the run), and those that were passed over.

    Raises:
        ConfigError: a step from it to `step` is not recorded.
    """
    from rezero_ray.checkpoint import load_before

    found, passed_over = load_before(run.path, step)
    first = found.run.step + 1 if found else 1
    missing = sorted(set(range(first, step)) - set(recorded_steps(run.path)))
    if missing:
        origin = f"the checkpoint of step {first - 1}" if found else "the start of the run"
        raise _wrong(
            run, f"step {step} is replayed from {origin}, and not recorded are: {in_ranges(missing)}"
        )
    unmeasured = sorted(set(range(first, step + 1)) - set(run.metrics))
    if unmeasured:
        raise _wrong(run, f"metrics.jsonl has no line for step {in_ranges(unmeasured)}")
    return found, passed_over


def _wrong(run: RecordedRun, what: str) -> ConfigError:
    remedy = "replay a step whose way from a checkpoint is whole"
    return ConfigError([Problem("", what, remedy, origin=Origin(str(run.path)))])


@contextmanager
def _lone_rank(device: Device) -> "Iterator[Callable[[Config], DeepSpeedLearner]]":
    """Makes this process the only rank; yields what makes a learner of a config. Inside, stdout is not printed to:
    DeepSpeed logs there."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what torch and transformers say of DeepSpeed's calls
        import torch

        from actors.deepspeed_learner import DeepSpeedLearner
        from actors.rendezvous import join, open_store

        store = open_store("127.0.0.1")
        join("127.0.0.1", store.port, rank=0, world_size=1)
        try:
            yield lambda config: DeepSpeedLearner(config, device, world_size=1)
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero replay",
        description="Recompute advantages, loss and gradient norm of a recorded step, from its rollouts and the "
        "checkpoint before it, on one rank, and show where they differ from what was recorded.",
        epilog="exit status: 0 all agrees, 1 something differs, 2 the request is wrong",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory (output_dir)")
    parser.add_argument("--step", type=int, required=True, metavar="N", help="which step")
    parser.add_argument(
        "--loss",
        choices=list(OPTIONS),
        metavar="TYPE",
        help=f"also show what another loss gives from the same state, with its default options: "
        f"{', '.join(OPTIONS)}",
    )
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        default=TOLERANCE,
        metavar="X",
        help="relative difference that counts as none (default %(default)s; bf16 on another number of ranks "
        "or another machine may need 0.05)",
    )
    return parser


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("write a number of at least 0, such as 0.01")
    return value
