"""`rezero export RUN --output DIR`: a run's adapter, or base and adapter merged into one model."""

import argparse
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rezero_ray.agreement import LARGEST_DISAGREEMENT
from rezero_ray.checkpoint import Checkpoint, load_wanted
from rezero_ray.config import Config, ConfigError, Origin, Problem, Request
from rezero_ray.config.flags import split_arguments
from rezero_ray.errors import RunError
from rezero_ray.preflight.machine import this_machine
from rezero_ray.preflight.model import examine_model
from rezero_ray.recorded_run import RecordedRun
from rezero_ray.records import Adapter, Rollout
from rezero_ray.step_record import recorded_steps

DONE, FAILED = 0, 1

OWN_FLAGS = ("--step", "--output", "--merge", "--dtype", "--max-loss")

PROVENANCE = "rezero_export.json"

MAX_ROLLOUTS = 8
"""Of the run's last step up to the checkpoint: some hundred tokens tell a loss of a twentieth from none."""


def main(argv: Sequence[str]) -> int:
    """Writes the directory and says what is in it; returns 1, and leaves nothing, where too much would be lost.

    Raises:
        ConfigError: no such run, checkpoint or model, or the directory is there already.
    """
    own, overrides = split_arguments(argv, OWN_FLAGS)
    options = _parser().parse_args(own)
    run = RecordedRun(options.run)
    checkpoint = load_wanted(run.path, options.step)
    if options.output.exists():
        raise _wrong(options.output, "is there already, and is not overwritten", "name another --output")
    step = checkpoint.run.step
    origin = {"run": str(run.path.resolve()), "step": step, "adapter_sha256": checkpoint.adapter.digest}
    if not options.merge:
        with _whole(options.output) as folder:
            write_adapter(checkpoint.adapter, folder)
            _write_json(folder / PROVENANCE, origin)
        print(f"{options.output}: the adapter of step {step}")
        return DONE
    request = run.request(step, overrides=["--infra.kind", "local", *overrides])
    base = _base_folder(request)
    rollouts = _some_rollouts(run, step)
    try:
        _merge(request.config, base, checkpoint, rollouts, options, origin)
    except RunError as error:
        print(f"failed: {error}")
        return FAILED
    print(f"{options.output}: {request.config.model.name} with the adapter of step {step} merged in")
    return DONE


def _merge(
    config: Config,
    base: Path,
    checkpoint: Checkpoint,
    rollouts: Sequence[Rollout],
    options: argparse.Namespace,
    origin: dict[str, Any],
) -> None:
    """Merge, measure, and keep the directory if enough is left.

    Raises:
        RunError: the effect that is lost is above the limit.
    """
    from rezero_ray.learning.policy import DTYPES
    from rezero_ray.merging.effect import measure_effect
    from rezero_ray.merging.files import merge_files

    with _whole(options.output) as folder, tempfile.TemporaryDirectory(prefix="rezero-export-") as scratch:
        adapter = Path(scratch)
        write_adapter(checkpoint.adapter, adapter)
        rounding = merge_files(
            base, checkpoint.adapter, folder, DTYPES[options.dtype] if options.dtype else None
        )
        print(
            f"weights: {rounding.changed:,} of the {rounding.weights:,} under the adapter changed "
            f"({rounding.changed / rounding.weights:.1%}); rounding took {rounding.lost_share:.1%} of the change",
            flush=True,
        )
        effect = measure_effect(
            base,
            adapter,
            folder,
            rollouts,
            device=this_machine().device(config),
            trust_remote_code=config.trainer.model.trust_remote_code,
        )
        limit = options.max_loss
        if limit is None:
            limit = LARGEST_DISAGREEMENT["float32" if rounding.in_fp32 else "bfloat16"]
        print(
            f"logprobs of {effect.tokens} tokens of {len(rollouts)} rollouts: the adapter moves the base by "
            f"{effect.move:.2g} nats, the merged model is {effect.difference:.2g} away from base and adapter; "
            f"{effect.lost_share:.1%} of the effect is lost (at most {limit:.0%})"
        )
        if not effect.within(limit):
            remedy = "export with --dtype float32, or serve the adapter: rezero serve RUN"
            raise RunError("trust", f"too little of the adapter is left in these weights. {remedy}")
        figures = {"weights": rounding.weights, "changed": rounding.changed, "lost": rounding.lost_share}
        figures |= {"effect_nats": effect.move, "difference_nats": effect.difference}
        _write_json(folder / PROVENANCE, origin | {"base": config.model.name} | figures)


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """In PEFT's format."""
    (folder / "adapter_model.safetensors").write_bytes(adapter.weights.data)
    (folder / "adapter_config.json").write_bytes(adapter.config)


def _base_folder(request: Request) -> Path:
    """The base model's directory on this machine. Raises ConfigError: it is not here, or not whole."""
    facts, found = examine_model(request.config, must_be_here=True, purpose="serve")
    problems = [problem for problem in found.problems if problem.key == "model.name"]
    with request.locating():
        if problems or facts is None or facts.folder is None:
            raise ConfigError(problems)
    return facts.folder


def _some_rollouts(run: RecordedRun, step: int) -> list[Rollout]:
    """The first rollouts of as many prompts of the last recorded step up to `step`.

    Raises:
        ConfigError: none is recorded.
    """
    steps = [recorded for recorded in recorded_steps(run.path) if recorded <= step]
    if not steps:
        what = f"has no rollouts of a step up to {step}, which the merged model is checked on"
        raise _wrong(run.path, what, "take the run's rollouts/ along with its checkpoints/")
    groups = run.step(steps[-1]).groups
    return [group.rollouts[0] for group in groups[:MAX_ROLLOUTS]]


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A directory beside `output` that takes its name when all is written, and goes when anything fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    try:
        yield folder
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors' are its writer's alone
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if output.exists():
            raise _wrong(output, "has appeared meanwhile, and is not overwritten", "name another --output")
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _wrong(where: Path, what: str, remedy: str) -> ConfigError:
    return ConfigError([Problem("", what, remedy, origin=Origin(str(where)))])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero export",
        usage="%(prog)s RUN --output DIR [--merge [--dtype TYPE]] [--step N] [--dotted.key value ...]",
        description="Write a run's adapter in PEFT's format, or with --merge one model: base and adapter merged in "
        "fp32, with tokenizer and configuration, compared with base and adapter on the run's own rollouts.",
        epilog="exit status: 0 written; 1 too much of the adapter's effect would be lost, nothing is left; "
        "2 the request is wrong. Keys of docs/configuration.md are flags (--model.name DIR for a base that moved).",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory (output_dir)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="must not be there; complete or not there"
    )
    parser.add_argument("--merge", action="store_true", help="one model instead of the adapter")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the merged weights (default: as in the base); bfloat16 rounds most of an early adapter away",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="the run's checkpoint of this step (default: the newest)"
    )
    parser.add_argument(
        "--max-loss",
        type=_share,
        metavar="X",
        help="share of the adapter's effect on logprobs that may be lost (default 0.05 in float32, else 0.5)",
    )
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("write a number from 0 to 1")
    return value
