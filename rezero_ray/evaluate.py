"""`rezero eval MODEL_OR_RUN`: the base model and a run's adapter on held-out tasks, side by side."""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from rezero_ray.checkpoint import Checkpoint, load_wanted
from rezero_ray.config import Config, Request, read_draft, read_request
from rezero_ray.config.environment import EnvConfig, chosen
from rezero_ray.config.evaluation import EvalConfig
from rezero_ray.config.flags import positive_number, split_arguments
from rezero_ray.errors import RunError
from rezero_ray.evaluation import Score, held_out_prompts, scores_of
from rezero_ray.preflight import Device, preflight
from rezero_ray.recorded_run import RecordedRun
from rezero_ray.records import BASE_POLICY, Adapter, Group
from rezero_ray.reporting.console import ConsoleReporter
from rezero_ray.reporting.evaluation_table import print_scores
from rezero_ray.sampler import PromptSampler
from rezero_ray.schedule import RolloutSchedule, Send, limits_of

DONE, FAILED = 0, 1

OWN_FLAGS = ("--env", "--step", "--config", "--num-examples", "--rollouts", "--json")


def main(argv: Sequence[str]) -> int:
    """Evaluates, prints the table; returns 0, or 1 where it failed while running.

    Raises:
        ConfigError: there is no such run, checkpoint or model, or an environment does not fit.
    """
    own, overrides = split_arguments(argv, OWN_FLAGS)
    options = _parser().parse_args(own)
    run = RecordedRun(options.target) if (options.target / "config.toml").is_file() else None
    with tempfile.TemporaryDirectory(prefix="rezero-eval-") as scratch:
        elsewhere = ["--output_dir", f"{scratch}/none"]
        found = load_wanted(run.path, options.step) if run is not None else None
        if run is not None and found is not None:
            request = run.request(found.run.step, options.config, [*elsewhere, *overrides])
        else:
            flags = ["--model.name", str(options.target), "--max_steps", "1", *elsewhere, *overrides]
            flags += _appended(options.config, flags, options.env)
            request = read_request(options.config, flags)
        config = _narrowed(request, options)
        with request.locating():
            facts = preflight(config)
        for note in facts.notes:
            print(f"note: {note}")
        try:
            base, adapter = _evaluate(config, facts.device, found)
        except RunError as error:
            print(f"failed: {error}")
            return FAILED
    print_scores(base, adapter)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode({"base": base, "adapter": adapter})))
        print(f"every reward: {options.json}")
    return DONE


def _narrowed(request: Request, options: argparse.Namespace) -> Config:
    """The request's config with the environments that were asked for, no learner and an `eval` table."""
    config = request.config
    envs = _wanted(config.orchestrator.env, options.env)
    settings = config.orchestrator.eval or EvalConfig()
    changes = {"num_examples": options.num_examples, "rollouts_per_example": options.rollouts}
    settings = settings.model_copy(update={key: value for key, value in changes.items() if value is not None})
    orchestrator = config.orchestrator.model_copy(update={"env": envs, "eval": settings})
    return config.model_copy(update={"orchestrator": orchestrator, "trainer_gpu_ids": []})


def _appended(files: Sequence[Path], flags: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Flags that add the environments that are asked for and not listed in the files."""
    draft = read_draft(files, flags)
    listed: list[EnvConfig] = []
    if draft.config is not None and not {"orchestrator", "orchestrator.env"} & draft.left_out:
        listed = draft.config.orchestrator.env
    new = [wanted for wanted in dict.fromkeys(asked) if not chosen(listed, wanted)]
    pairs = [(f"--orchestrator.env.{len(listed) + number}.id", wanted) for number, wanted in enumerate(new)]
    return [word for pair in pairs for word in pair]


def _wanted(listed: Sequence[EnvConfig], asked: Sequence[str]) -> list[EnvConfig]:
    """The listed environments of these names or ids, and environments of ids that are not listed; all that are listed
    where nothing is asked for."""
    found: dict[str, EnvConfig] = {}
    for wanted in asked:
        known = [listed[index] for index in chosen(listed, wanted)] or [EnvConfig(id=wanted)]
        found |= {env.name: env for env in known}
    return list(found.values()) or list(listed)


def _evaluate(
    config: Config, device: Device, checkpoint: Checkpoint | None
) -> tuple[list[Score], list[Score]]:
    """Scores of the base model, and of the checkpoint's adapter, on the same tasks and seeds."""
    from actors.crew import start_scorers
    from actors.rollout_stream import RolloutStream
    from infra.bootstrap import start_cluster

    settings = config.orchestrator.eval
    assert settings is not None, "set by _narrowed"
    gpus = len(set(config.inference_gpu_ids)) if device == "cuda" else 0
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        stack.enter_context(start_cluster(config, gpus=gpus))
        progress.console.begin("loading the model")
        crew = stack.enter_context(start_scorers(config, device))
        sizes = {name: of.held_out for name, of in crew.environments.sizes().items()}
        prompts = held_out_prompts(sizes, config, settings)
        nothing = RolloutSchedule(
            PromptSampler(dict.fromkeys(sizes, 1), dict.fromkeys(sizes, 1.0), seed=0),
            msgspec.structs.replace(limits_of(config), steps=0),
        )
        stream = RolloutStream(nothing, crew.environments, crew.engines, config, progress)
        versions: dict[int, Adapter] = {checkpoint.run.step: checkpoint.adapter} if checkpoint else {}
        found = []
        for version in (BASE_POLICY, *versions):
            if version in versions:
                crew.engines.publish(version, versions[version])
            name = f"policy of step {version}" if version in versions else "base model"
            progress.console.begin(name, len(prompts))
            groups = stream.held_out(prompts, version, settings, lambda: False)
            found.append(scores_of(prompts, groups or [], version, settings))
    return found[0], found[1] if checkpoint else []


class Progress:
    """The stream's listener: groups move the bar, what happens is printed."""

    def __init__(self) -> None:
        self.console = ConsoleReporter(0)

    def __enter__(self) -> "Progress":
        self.console.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.console.__exit__(None, None, None)

    def group(self, group: Group) -> None:
        self.console.advance()

    def say(self, line: str) -> None:
        self.console.say(line)

    def put_aside(self, send: Send, kind: str, message: str) -> None:
        self.say(f"{send.prompt.environment}, example {send.prompt.example} failed: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero eval",
        usage="%(prog)s MODEL_OR_RUN [--env NAME ...] [--step N] [--dotted.key value ...]",
        description="Roll out and score held-out tasks: the base model's and, for a run, its adapter's, sampled with "
        "the same seeds; the difference is taken task by task. Nothing is trained.",
        epilog="Keys of docs/configuration.md are flags here as well; a run brings its own config.toml.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "target", type=Path, metavar="MODEL_OR_RUN", help="a run directory, a model directory or a hub id"
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME",
        help="environment by name or id; the run's own where not given",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="the run's checkpoint of this step (default: the newest)"
    )
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="TOML", help="further keys, as in a run"
    )
    parser.add_argument(
        "--num-examples", type=positive_number, metavar="N", help="held-out tasks of each environment"
    )
    parser.add_argument(
        "--rollouts", type=positive_number, metavar="K", help="rollouts a task: the k of avg@k"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reward there")
    return parser
