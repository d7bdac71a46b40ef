"""TOML files and flags -> a checked Config, or one ConfigError with everything that is wrong."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from rezero_ray.config.cross_check import cross_check
from rezero_ray.config.explain import explain
from rezero_ray.config.flags import Override, apply_overrides, parse_overrides
from rezero_ray.config.home import expand_home
from rezero_ray.config.layers import Layer, merge, read_layer
from rezero_ray.config.problems import ConfigError, Origin, Problem, dotted, path_of
from rezero_ray.config.schema import Config
from rezero_ray.config.stand_ins import STAND_INS, replace_at, without


@dataclass(frozen=True)
class Request:
    """A checked config that still knows where each value was written."""

    config: Config
    layer: Layer

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Adds file and line, or the flag, to the problems that are found inside, e.g. by the preflight."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError([_located(problem, self.layer) for problem in error.problems]) from None


def load_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> Config:
    """The run that the files and then the overrides (`--dotted.key value` arguments) describe.

    Raises ConfigError naming every problem that can be told without looking at the model, the environments or
    the machine; see rezero_ray.preflight for those.
    """
    return read_request(files, overrides).config


def read_request(files: Sequence[Path], overrides: Sequence[str] = ()) -> Request:
    """As load_config; what comes back can also say where a later problem was written."""
    draft = read_draft(files, overrides)
    if draft.problems or draft.config is None:
        raise ConfigError(draft.problems)
    return Request(draft.config, draft.layer)


@dataclass(frozen=True)
class Draft:
    """A request as far as it can be read.

    `config` has defaults, or stand-ins, where something is wrong; None where not even that makes one. It is for
    looking further, and never for a run unless `problems` is empty. `left_out`: the keys of what is wrong.
    """

    config: Config | None
    layer: Layer
    problems: tuple[Problem, ...]
    left_out: frozenset[str] = frozenset()

    def with_findings(self, found: Iterable[Problem]) -> list[Problem]:
        """All problems in reading order: of what is found later, only what nothing left out can be the cause of, and
        what is not told already."""
        told = self.left_out | {problem.key for problem in self.problems}
        new = [
            _located(problem, self.layer)
            for problem in found
            if not _is_under(problem.key, told)
            and not any(_is_under(key, self.left_out) for key in problem.others)
        ]
        return sorted([*self.problems, *new], key=_reading_order)


def read_draft(files: Sequence[Path], overrides: Sequence[str] = ()) -> Draft:
    """
    Raises:
        ConfigError: a file or a flag cannot be read at all.
    """
    layer, problems = _read_all(files)
    flags, flag_problems = parse_overrides(overrides)
    problems += flag_problems
    if problems:
        raise ConfigError(problems)
    return _draft(layer, flags)


def read_environment(overrides: Sequence[str]) -> Draft:
    """A config of one environment: `--env` is its id, `--model` is `model.name`, and the other flags are keys of its
    `[[orchestrator.env]]`.

    Raises:
        ConfigError: a flag cannot be read at all.
    """
    flags, problems = parse_overrides(overrides)
    if problems:
        raise ConfigError(problems)
    of_environment = ("orchestrator", "env", "0")
    meant: dict[tuple[str, ...], tuple[str, ...]] = {
        ("env",): (*of_environment, "id"),
        ("model",): ("model", "name"),
    }
    keys = [meant.get(flag.keys, (*of_environment, *flag.keys)) for flag in flags]
    return _draft(
        merge(Layer(), Layer(dict(STAND_INS))),
        [replace(flag, keys=key) for flag, key in zip(flags, keys, strict=True)],
    )


def _draft(layer: Layer, flags: Sequence[Override]) -> Draft:
    layer, problems = apply_overrides(layer, flags)
    config, schema_problems = _validate(layer, flags)
    problems += schema_problems
    wrong = frozenset(key for problem in problems for key in (problem.key, *problem.others))
    draft = Draft(config or without(layer.data, problems), layer, tuple(problems), wrong)
    if draft.config is None:
        return replace(draft, problems=tuple(sorted(problems, key=_reading_order)))
    return replace(draft, problems=tuple(draft.with_findings(cross_check(draft.config))))


def _is_under(key: str, wrong: Collection[str]) -> bool:
    """Whether a key, or a table that it lies in, is among the wrong ones."""
    path = path_of(key)
    return any(dotted(path[:length]) in wrong for length in range(1, len(path) + 1))


def _read_all(files: Sequence[Path]) -> tuple[Layer, list[Problem]]:
    layer = Layer()
    problems: list[Problem] = []
    for file in files:
        try:
            layer = merge(layer, read_layer(file))
        except ConfigError as error:
            problems.extend(error.problems)
    return layer, problems


def _validate(layer: Layer, flags: Sequence[Override]) -> tuple[Config | None, list[Problem]]:
    try:
        return expand_home(Config.model_validate(layer.data, strict=True)), []
    except ValidationError as error:
        if _take_flags_as_strings(error, layer, flags):
            return _validate(layer, ())
        return None, explain(error, layer)


def _take_flags_as_strings(error: ValidationError, layer: Layer, flags: Sequence[Override]) -> bool:
    """`--output_dir 2026` reads as a TOML integer; where the schema wants a string, take the text itself."""
    wanted = {detail["loc"] for detail in error.errors() if detail["type"] == "string_type"}
    changed = False
    for flag in flags:
        path = tuple(int(key) if key.isdecimal() else key for key in flag.keys)
        if path in wanted and not isinstance(flag.value, dict | list):
            replace_at(layer.data, path, flag.raw)
            changed = True
    return changed


def _located(problem: Problem, layer: Layer) -> Problem:
    return problem.at(layer.origin(path_of(problem.key)))


def _reading_order(problem: Problem) -> tuple[str, int]:
    origin = problem.origin or Origin("~")
    return origin.source, origin.line or 0
