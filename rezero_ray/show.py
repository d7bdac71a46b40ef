"""`rezero show RUN`: the rollouts of a step for a reader."""

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from rezero_ray.config import ConfigError, Origin, Problem
from rezero_ray.config.flags import positive_number
from rezero_ray.preflight.model_facts import local_folder
from rezero_ray.recorded_run import RecordedRun
from rezero_ray.records import Group, Rollout
from rezero_ray.reporting.printable import printable
from rezero_ray.step_record import in_ranges

HEADLINE = {
    "reward/mean": "reward",
    "loss": "loss",
    "entropy": "entropy",
    "grad_norm": "grad norm",
    "mismatch_kl": "mismatch KL",
    "staleness/mean": "staleness",
    "staleness/max": "at most",
    "errors/zeroed": "rollouts with a reward function that failed and counts as 0.0",
}
"""Metrics of the first lines, and what they are called there."""


def main(argv: Sequence[str]) -> int:
    """Prints a step's rollouts; returns 0.

    Raises:
        ConfigError: there is no such run, step or prompt, or its record is damaged.
    """
    options = _parser().parse_args(argv)
    run = RecordedRun(options.run)
    step = run.last_step() if options.step is None else options.step
    record = run.step(step)
    chosen = list(zip(record.groups, record.advantages, strict=True))
    if options.prompt is not None:
        chosen = [pair for pair in chosen if pair[0].prompt.index == options.prompt]
        if not chosen:
            there = in_ranges(sorted(group.prompt.index for group in record.groups))
            what = f"step {step} has no prompt {options.prompt}"
            problem = Problem("", what, f"name one that it has: {there}", origin=Origin(str(options.run)))
            raise ConfigError([problem])
    config = run.request(step).config
    page = Page(*prompt_decoder(config.model.name))
    page.line(f"{options.run}, step {step} of {config.max_steps}", style="bold")
    page.line(_headline(run.metrics.get(step)))
    page.line(
        _count(len(record.groups), "prompt") + ", " + _count(sum(map(len, record.advantages)), "rollout")
    )
    for group, advantages in chosen[: options.limit]:
        page.group(group, advantages)
    if options.limit is not None and len(chosen) > options.limit:
        page.line(
            f"\n{_count(len(chosen) - options.limit, 'more prompt')}: raise --limit, or name one by --prompt"
        )
    return 0


def prompt_decoder(model: str) -> tuple[Callable[[Sequence[int]], str] | None, str]:
    """From token ids to text by the model's tokenizer.json, special tokens included; no network, no code of the
    model's. None where there is no such file here, and then why."""
    folder = local_folder(model)
    if folder is None:
        return None, f"the model {model} is not on this machine"
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None, f"{folder} has no tokenizer.json"
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the only type that tokenizers raises
        return None, f"{file} cannot be read: {error}"
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False)), ""


class PipeConsole(Console):
    """A console whose reader may leave before the end: rich would exit with 1, `train.answered` knows better."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Page:
    """Prints groups and rollouts, indented; text of others is never markup and never reaches the terminal raw.

    Args:
        decode: token ids to text, or None.
        why_not: why there is no `decode`.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str] | None, why_not: str) -> None:
        self._console = PipeConsole(highlight=False)
        self._decode, self._why_not = decode, why_not

    def line(self, text: str, *, indent: int = 0, style: str = "") -> None:
        shown = textwrap.indent(printable(text), " " * indent)
        self._console.print(Text(shown, style=style), soft_wrap=True)

    def group(self, group: Group, advantages: Sequence[float]) -> None:
        prompt, first = group.prompt, group.rollouts[0]
        name = f"prompt {prompt.index}: {prompt.environment}, example {prompt.example}"
        self.line(f"\n{name}", style="bold cyan")
        self._prompt(first)
        for number, (rollout, advantage) in enumerate(zip(group.rollouts, advantages, strict=True), start=1):
            self._facts(rollout, advantage, f"rollout {number} of {len(group.rollouts)}")
            if _prompt_ids(rollout) != _prompt_ids(first):
                self.line("its prompt is another:", indent=4)
                self._prompt(rollout)
            for message in rollout.text:
                self.line(f"{message.get('role', '')}:", indent=4, style="dim")
                self.line(message.get("content", ""), indent=6)

    def _prompt(self, rollout: Rollout) -> None:
        ids = _prompt_ids(rollout)
        if self._decode is None:
            self.line(f"{_count(len(ids), 'token id')}, no text: {self._why_not}", indent=4)
        else:
            self.line(self._decode(ids), indent=4)

    def _facts(self, rollout: Rollout, advantage: float, name: str) -> None:
        facts = [
            f"reward {rollout.reward:.4g}",
            f"advantage {advantage:+.4g}",
            f"policy version {rollout.policy_version}",
            _count(rollout.turns, "turn"),
            f"{_count(int(rollout.loss_mask.sum()), 'token')} written",
            *(["truncated"] if rollout.truncated else []),
        ]
        self.line(f"\n{name}: {', '.join(facts)}", indent=2, style="bold")
        if rollout.components:
            components = (f"{component} {value:.4g}" for component, value in rollout.components.items())
            self.line(", ".join(components), indent=4)
        for why in rollout.zeroed.values():
            self.line(f"counts as 0.0: {why}", indent=4, style="bold red")


def _prompt_ids(rollout: Rollout) -> list[int]:
    ids: list[int] = rollout.token_ids[: rollout.prompt_length].tolist()
    return ids


def _headline(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "metrics.jsonl has no line for it"
    return ", ".join(f"{name} {row[key]:.4g}" for key, name in HEADLINE.items() if key in row)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero show",
        description="Print the rollouts that a step was trained on: prompt, turns, reward by component, "
        "advantage, policy version.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run directory (output_dir)")
    parser.add_argument("--step", type=int, metavar="N", help="which step; the last recorded one if left out")
    parser.add_argument("--prompt", type=int, metavar="INDEX", help="only the prompt of this number")
    parser.add_argument("--limit", type=positive_number, metavar="K", help="at most K prompts")
    return parser
