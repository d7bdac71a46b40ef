"""`rezero check`: all that can be known to be wrong with a request, or with an environment, before it is run."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rezero_ray.config import Config, ConfigError, Draft, Origin, Problem, read_draft, read_environment
from rezero_ray.config.environment import chosen
from rezero_ray.config.flags import split_arguments
from rezero_ray.config.problems import shown
from rezero_ray.preflight import Backend, survey
from rezero_ray.preflight.environment_scoring import FULL, QUICK
from rezero_ray.preflight.environments import (
    Looks,
    examine_sources,
    judge,
    longest_in_tokens,
    look_at,
)
from rezero_ray.preflight.foreign_environments import Seen
from rezero_ray.preflight.model_facts import ModelFacts, find_model

_ABOUT = """\
With a TOML: configuration, model, tokenizer, environments and their prompts, output, machine and backend, all in one
pass. With --env: one environment, without a model: its tasks, and its rewards for perfect, empty, echoed, random and
hostile answers, scored twice.

the environment of --env:
  Without a TOML every key of [[orchestrator.env]] is a flag:
    rezero check --env my-env --args '{"difficulty": 2}' --requirements '["verifiers==0.1.10", "my-env"]'
    rezero check --env redteam-attack --args.seed 3 --model models/SmolLM2-135M-Instruct
  With one, ID is the name of one of its environments, or the id of several; args, requirements and model are the
  TOML's.
"""


def main(arguments: Sequence[str], backend: Backend) -> int:
    """Prints what was found; returns 0.

    Raises:
        ConfigError: with all that is wrong.
    """
    own, overrides = split_arguments(arguments)
    env_id, overrides = _without_env(overrides)
    options = _parser(needs_files=env_id is None).parse_args(own)
    if env_id is None:
        return _request(read_draft(options.files, overrides), backend, resume=options.resume)
    if options.files:
        return _environments(read_draft(options.files, overrides), env_id, in_file=True)
    return _environments(read_environment(["--env", env_id, *overrides]), env_id, in_file=False)


def _request(draft: Draft, backend: Backend, *, resume: bool) -> int:
    if draft.config is None:
        raise ConfigError(draft.problems)
    found, problems = survey(draft.config, resume=resume, backend=backend, effort=QUICK)
    every = draft.with_findings(problems)
    if every:
        raise ConfigError(every)
    for note in found.notes:
        print(f"note: {note}")
    print(f"nothing is wrong with this request; it would run on {found.device}")
    return 0


def _environments(draft: Draft, env_id: str, *, in_file: bool) -> int:
    config = draft.config
    if config is None or draft.problems:
        raise ConfigError(draft.problems)
    listed = config.orchestrator.env
    wanted = chosen(listed, env_id)
    if not wanted:
        remedy = (
            f"it has {', '.join(env.name for env in listed)}; without a TOML any environment may be named"
        )
        what = "the TOML has no such environment"
        raise ConfigError([Problem("", what, remedy, origin=Origin(f"--env {env_id}"))])
    others = {index for index in range(len(listed)) if index not in wanted}
    sources = examine_sources(config, must_be_here=True)
    keys = tuple(f"orchestrator.env.{index}." for index in wanted)
    problems = [problem for problem in sources.problems if problem.key.startswith(keys)]
    if problems:
        raise ConfigError(draft.with_findings(problems))
    looks = _look(config, others)
    if problems := _told(config, looks, in_file=in_file):
        raise ConfigError(draft.with_findings(problems))
    reports = [seen.report for seen in looks.seen.values() if isinstance(seen, Seen) and seen.report]
    constant = any(report.constant is not None for report in reports)
    print(f"nothing {'else ' if constant else ''}is wrong with this environment")
    return 0


def _look(config: Config, others: set[int]) -> Looks:
    from rich.console import Console

    with Console(stderr=True).status("trying it with answers"):
        return look_at(config, _facts(config), effort=FULL, leave=others)


def _told(config: Config, looks: Looks, *, in_file: bool) -> list[Problem]:
    """Prints what was seen. Returns what is wrong with it."""
    from rezero_ray.reporting.environment_table import print_environment

    problems = list(looks.found.problems)
    for index, seen in looks.seen.items():
        found = judge(config, index, seen, looks.tokenizer if in_file else None, looks.positions)
        problems += found.problems
        if isinstance(seen, Seen) and seen.report is not None:
            print_environment(seen.report, _tokens(config, looks.tokenizer, seen))
            for note in found.notes[1:]:  # the first is in the table
                print(f"note: {note}")
    return problems


def _tokens(config: Config, tokenizer: Any, seen: Seen) -> tuple[int, str] | None:
    try:
        return (longest_in_tokens(tokenizer, seen.prompts), config.model.name) if tokenizer else None
    except ValueError:  # told as a problem where there is a TOML
        return None


def _facts(config: Config) -> ModelFacts | None:
    try:
        return find_model(config.model.name)
    except ValueError as error:
        raise ConfigError([Problem("model.name", str(error), "", shown(config.model.name))]) from None


def _without_env(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--env`, and the other flags."""
    rest: list[str] = []
    env_id: str | None = None
    arguments = iter(overrides)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name == "--env":
            env_id = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    return env_id, rest


def _parser(*, needs_files: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero check",
        usage="%(prog)s A.toml [B.toml ...] [--dotted.key value ...] [--resume]\n"
        "       %(prog)s [A.toml ...] --env ID [--KEY value ...] [--model NAME]",
        description="Look for everything that could go wrong, and start nothing.",
        epilog=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    many = "+" if needs_files else "*"
    parser.add_argument("files", nargs=many, type=Path, metavar="TOML", help="configuration; later files win")
    parser.add_argument("--resume", action="store_true", help="the run of output_dir is to go on")
    return parser
