"""`rezero VERB ...`: the trainer and its companions. A verb that does not exist yet is not listed."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.examination import examine
from rezero_ray import __version__, check, train
from rezero_ray.config import read_request
from rezero_ray.config.flags import split_arguments

VERBS = {
    "train": "train; the same as python -m rezero_ray.train",
    "check": "look for everything that could go wrong with a request, or with one environment; start nothing",
    "plan": "print what a run would be: bundles, tokens, adapter, memory, seconds, dollars",
    "doctor": "measure the place: memory, shared memory, disk, GPUs, what the ranks exchange",
    "show": "print the rollouts of a step for a reader",
    "eval": "score a model, or a run's adapter beside its base, on held-out tasks",
    "serve": "serve a model, or runs' adapters beside their base model, by the OpenAI API",
    "export": "write a run's adapter, or base and adapter merged, for other programs",
    "replay": "recompute a recorded step from its rollouts and the checkpoint before it, and compare",
    "track": "send to MLflow what it has not of a run, e.g. after an outage",
    "runs": "list the runs that were launched elsewhere, or show one",
    "logs": "follow what a launched run prints",
    "stop": "ask a launched run to save a checkpoint and end",
}

MODULES = {
    "doctor": "doctor",
    "show": "show",
    "eval": "evaluate",
    "serve": "serve",
    "export": "export",
    "replay": "replay",
    "track": "track",
}
"""Verbs that are a module of their own, loaded when they are asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit status (see rezero_ray.train)."""
    if argv is None:
        _find_modules_here()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in VERBS:
        verb, rest = arguments[0], arguments[1:]
        if verb == "train":
            return train.main(rest, prog="rezero train")
        if verb in MODULES:
            return train.answered(lambda: _of_its_module(verb, rest))
        if verb == "check":
            return train.answered(lambda: check.main(rest, examine))
        if verb in ("runs", "logs", "stop"):
            return train.answered(lambda: _launched(verb, rest))
        own, overrides = split_arguments(rest)
        return train.answered(lambda: _look(verb, own, overrides))
    return train.answered(lambda: _no_verb(arguments))


def _find_modules_here() -> None:
    """Put the working directory on the import path, as `python -m` does: the script `rezero` starts with its own.
    An environment may be a module beside the TOML. `python -P` and PYTHONSAFEPATH ask for the contrary."""
    if not sys.flags.safe_path and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))


def _look(verb: str, own: Sequence[str], overrides: Sequence[str]) -> int:
    options = _file_parser(verb).parse_args(own)
    request = read_request(options.files, overrides)
    return train.show_plan(request, resume=options.resume, with_config=False)


def _of_its_module(verb: str, arguments: Sequence[str]) -> int:
    return int(importlib.import_module(f"rezero_ray.{MODULES[verb]}").main(arguments))


def _launched(verb: str, arguments: Sequence[str]) -> int:
    from rezero_ray import launch

    return launch.companion(verb, VERBS[verb], arguments)


def _no_verb(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rezero",
        usage="rezero VERB ...",
        description="Reinforcement learning of language-model agents on any Ray cluster.",
        epilog="`rezero VERB --help` says more about a verb.",
    )
    parser.add_argument("--version", action="version", version=f"rezero_ray {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, purpose in VERBS.items():
        verbs.add_parser(name, help=purpose, add_help=False)
    parser.parse_args(arguments)
    return train.WRONG_REQUEST


def _file_parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"rezero {verb}",
        usage="%(prog)s A.toml [B.toml ...] [--dotted.key value ...] [--resume]",
        description=f"{VERBS[verb].capitalize()}.",
        epilog=train.OVERRIDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="TOML", help="configuration; later files win")
    parser.add_argument("--resume", action="store_true", help="the run of output_dir is to go on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
