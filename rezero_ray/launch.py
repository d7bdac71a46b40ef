"""Runs that are carried out elsewhere: launched, followed for as long as the reader likes, listed, stopped."""

import argparse
import sys
from collections.abc import Callable, Sequence

from infra.launcher import Handle, Launcher, launchers
from infra.rates import rate_of
from rezero_ray.config import ConfigError, Problem, Request
from rezero_ray.cost import cost_lines
from rezero_ray.preflight import preflight

DONE = 0


def launch(launcher: Launcher, request: Request, *, resume: bool, force_new: bool) -> int:
    """Check the request here, take it there, and follow it: its exit status, or 0 where the reader leaves before."""
    with request.locating():
        for note in preflight(request.config, resume=resume).notes:
            print(f"note: {note}", file=sys.stderr)
        for line in cost_lines(rate_of(request.config.infra), None, request.config.max_steps, None):
            print(line, flush=True)
        run = launcher.launch(request.config, resume=resume, force_new=force_new)
    print(f"launched {run.name}: {run.address}")
    return follow(run)


def follow(run: Handle) -> int:
    """Print what the run prints until it ends, or until Ctrl-C, which leaves the run alone."""
    print(f"following {run.name}; Ctrl-C leaves it running", flush=True)
    try:
        for text in run.logs():
            print(text, end="", flush=True)
        return run.result()
    except KeyboardInterrupt:
        print(
            f"\n{run.name} goes on: {run.address}\n"
            f"  follow   rezero logs {run.name}\n"
            f"  look     rezero runs {run.name}\n"
            f"  stop     rezero stop {run.name}\n"
            "  resume   after its end: the command that launched it, with --resume"
        )
        return DONE


def companion(verb: str, purpose: str, arguments: Sequence[str]) -> int:
    """`rezero runs [NAME]`, `rezero logs NAME`, `rezero stop NAME`."""
    parser = argparse.ArgumentParser(prog=f"rezero {verb}", description=f"{purpose.capitalize()}.")
    nargs = "?" if verb == "runs" else None
    parser.add_argument("name", metavar="NAME", nargs=nargs, help="a run, as `rezero runs` lists it")
    name = parser.parse_args(arguments).name
    if name is None:
        return _list()
    return _VERBS[verb](_find(name))


def _list() -> int:
    found = _runs()
    width = max((len(run.name) for run in found), default=0)
    for run in found:
        print(f"{run.name:{width}}  {run.status()}  {run.address}")
    if not found:
        print("no runs")
    return DONE


def _show(run: Handle) -> int:
    for what, value in run.facts():
        print(f"{what + ':':<15} {value}")
    return DONE


def _stop(run: Handle) -> int:
    run.stop()
    print(f"{run.name} is asked to stop: it finishes its step and saves. Watch: rezero logs {run.name}")
    return DONE


_VERBS: dict[str, Callable[[Handle], int]] = {"runs": _show, "logs": follow, "stop": _stop}


def _find(name: str) -> Handle:
    found = _runs()
    for run in found:
        if run.name == name:
            return run
    names = ", ".join(run.name for run in found) or "none"
    raise ConfigError([Problem("", f"there is no run {name}", f"the runs there are: {names}")])


def _runs() -> list[Handle]:
    """Of every backend that can be asked; of those that cannot the reason is told."""
    found: list[Handle] = []
    problems: list[Problem] = []
    for launcher in launchers().values():
        try:
            found += launcher.runs()
        except ConfigError as error:
            problems += error.problems
    if problems and not found:
        raise ConfigError(problems)
    for problem in problems:
        print(problem, file=sys.stderr)
    return found
