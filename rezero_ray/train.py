"""`python -m rezero_ray.train A.toml [B.toml ...] [--dotted.key value ...] [--dry-run] [--resume]`.

Exit status: 0 done, or stopped by its budget with a checkpoint; 1 it failed while running; 2 the request is wrong;
130 interrupted, checkpoint saved.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.examination import examine
from infra.launcher import launcher_of
from infra.rates import rate_of
from rezero_ray.config import Config, ConfigError, Problem, Request, dump_toml, read_request
from rezero_ray.config.flags import split_arguments
from rezero_ray.forecast.beforehand import Forecast, forecast, place_of
from rezero_ray.forecast.model_work import model_work
from rezero_ray.host.proxies import bypass_proxies
from rezero_ray.plan import Plan, make_plan, render_plan
from rezero_ray.preflight import Preflight, preflight
from rezero_ray.preflight.environments import look_at
from rezero_ray.preflight.expected import Expected, expected_lengths

DONE = 0
FAILED = 1
WRONG_REQUEST = 2
INTERRUPTED = 130

OVERRIDING = """\
overriding keys:
  Later files win over earlier ones, flags win over files. Every key of docs/configuration.md is a flag:
    --max_steps 3
    --trainer.optim.lr 1e-5
    --trainer.model.lora.target_modules '["q_proj", "o_proj"]'
    --orchestrator.env.0.id phishing-detection
  A value is read as TOML, or else as a plain string.
"""

_EXIT_STATUS = """
exit status:
  0 done, or stopped by its budget, checkpoint saved   1 failed while running   2 the request is wrong
  130 interrupted, checkpoint saved
"""


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m rezero_ray.train") -> int:
    """Runs the command and returns its exit status; what is wrong with the request goes to stderr."""
    own, overrides = split_arguments(sys.argv[1:] if argv is None else argv)
    return answered(lambda: _train(_parser(prog).parse_args(own), overrides))


def answered(command: Callable[[], int]) -> int:
    """The exit status of a command; a wrong request is explained on stderr, without a traceback.

    Whatever the command asks of this machine itself goes past the environment's proxies.
    """
    bypass_proxies()
    try:
        return command()
    except ConfigError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''}; nothing was started.", file=sys.stderr)
        return WRONG_REQUEST
    except SystemExit as leaving:  # argparse, after printing its usage or its help
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or DONE
        print(leaving.code, file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED


def show_plan(request: Request, *, resume: bool, with_config: bool) -> int:
    """Prints the plan; starts nothing and leaves no file.

    `with_config` puts the resolved config above it and answers in about a second. Without it the plan has a forecast
    of seconds, for which the environments are built and a CPU is measured: some seconds more.
    """
    config = request.config
    with request.locating():
        found = preflight(config, resume=resume, for_run=False)
    plan = make_plan(config, found.facts, found.machine, found.device)
    notes = list(found.notes)
    seconds = None if with_config else _forecast(config, found, plan, notes)
    text = render_plan(plan, config, notes, seconds, rate_of(config.infra))
    if with_config:  # all of what is printed is one TOML file then
        text = dump_toml(config) + "\n" + textwrap.indent(text, "# ")
    print(text, flush=True)
    return DONE


def _forecast(config: Config, found: Preflight, plan: Plan, notes: list[str]) -> Forecast | None:
    """Builds the environments and measures a CPU; why there is none is added to the notes."""
    work = model_work(config, found.facts) if found.facts is not None else None
    if found.facts is None or work is None:
        notes.append("time: no forecast, the shapes of the model are not known")
        return None
    place, note = place_of(config, found.facts, found.machine, found.device)
    notes += [note] if note else []
    if place is None:
        return None
    expected = expected_lengths(config, look_at(config, found.facts, effort=None))
    return forecast(config, work, place, expected, kv_tokens=plan.kv_tokens)


def _expected(config: Config, found: Preflight) -> Expected | None:
    return expected_lengths(config, found.looks) if found.looks is not None else None


def _train(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    request = read_request(options.files, overrides)
    if options.dry_run:
        return show_plan(request, resume=options.resume, with_config=True)
    launcher = launcher_of(request.config.infra)
    if launcher is not None:
        from rezero_ray.launch import launch

        return launch(launcher, request, resume=options.resume, force_new=options.force_new)
    if options.force_new:
        kind = request.config.infra.kind
        what = f'has no effect with infra.kind = "{kind}": nothing is launched elsewhere'
        raise ConfigError([Problem("--force-new", what, "drop it, and name another output_dir")])
    with request.locating():
        found = preflight(request.config, resume=options.resume, backend=examine)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    from rezero_ray.run import run_training

    with request.locating():
        return run_training(request.config, resume=options.resume, expected=_expected(request.config, found))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s A.toml [B.toml ...] [--dotted.key value ...] [--dry-run] [--resume] [--force-new]",
        description="Train a language-model agent with reinforcement learning.",
        epilog=OVERRIDING + _EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="TOML", help="configuration; later files win")
    parser.add_argument(
        "--dry-run", action="store_true", help="check, print the resolved config and the plan, start nothing"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest complete checkpoint of output_dir"
    )
    parser.add_argument(
        "--force-new", action="store_true", help="launch though the same configuration runs already"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
