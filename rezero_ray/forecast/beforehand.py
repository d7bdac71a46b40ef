"""The forecast before a run: on which place, at which lengths. Arithmetic, but for `place_of`, which may measure."""

from dataclasses import dataclass

from rezero_ray.config import Config
from rezero_ray.forecast.lengths import REPLY_TOKENS, Lengths, full_lengths
from rezero_ray.forecast.measurement import measure_place
from rezero_ray.forecast.model_work import ModelWork
from rezero_ray.forecast.place import Place, known_place
from rezero_ray.forecast.step_time import StepTime, step_time
from rezero_ray.preflight.expected import Expected
from rezero_ray.preflight.machine import Device, Machine
from rezero_ray.preflight.model_facts import ModelFacts

ASSUMED_GPU = "H100"
"""The recipes' own, where a run is planned for GPUs and none is seen."""


@dataclass(frozen=True)
class Forecast:
    """Seconds of a step at assumed lengths; `assumption` says which, in words."""

    place: Place
    lengths: Lengths
    step: StepTime
    steps: int
    assumption: str

    @property
    def seconds_per_step(self) -> float:
        return self.step.seconds_per_step

    @property
    def seconds(self) -> float:
        """Of all steps; start and evaluations are not in it."""
        return self.steps * self.seconds_per_step


def forecast(
    config: Config, work: ModelWork, place: Place, expected: Expected | None, *, kv_tokens: int | None
) -> Forecast:
    """Every completion has `max_tokens`, every rollout all of its turns, within `seq_len`.

    Args:
        config: of the run.
        work: what the model costs.
        place: of engine and learner.
        expected: what the environments say; None where they were not asked: one turn, behind the longest prompt
            that leaves room for it.
        kv_tokens: that one engine's cache holds, where that is known.
    """
    most = config.orchestrator.sampling.max_tokens
    if expected is None:
        prompt, turns = config.seq_len - most, 1
        words = f"prompts of {prompt} tokens, all that seq_len leaves, 1 turn"
    else:
        prompt = min(expected.prompt, config.seq_len - most)
        turns = expected.turns or max(1, (config.seq_len - prompt) // most)
        words = f"{expected.words}, {turns} turn{'s' if turns > 1 else ''}"
        words += "" if expected.turns else " (as many as seq_len holds)"
        words += f" with replies of {REPLY_TOKENS} tokens" if turns > 1 else ""
    lengths = full_lengths(config, prompt=prompt, turns=turns)
    return Forecast(
        place=place,
        lengths=lengths,
        step=step_time(config, work, place, lengths, kv_tokens=kv_tokens),
        steps=config.max_steps,
        assumption=f"{words}, every completion of max_tokens = {most}; shorter ones take less",
    )


def place_of(
    config: Config, facts: ModelFacts, machine: Machine, device: Device
) -> tuple[Place | None, str | None]:
    """Where the run is to be, and a note on it. A CPU, and a GPU that is not in the table, are measured if they are
    here, which takes seconds; the place is None where they are not."""
    here = config.infra.on_this_machine() and not config.infra.elsewhere()
    if device == "cuda" and machine.gpu_name is None and not (here and machine.gpu_gib):
        return known_place(ASSUMED_GPU, config.model.dtype), f"time: as if the GPUs were {ASSUMED_GPU}s"
    if device == "cuda" and machine.gpu_name is not None:
        place = known_place(machine.gpu_name, config.model.dtype)
        if place is not None:
            return place, None
    if not here:
        what = machine.gpu_name or "the CPU"
        return None, f"time: no forecast, {what} is neither in the table of forecast/place.py nor here"
    return measure_place(device, config.model.dtype, **shape_of(facts)), None


def shape_of(facts: ModelFacts) -> dict[str, int]:
    """What `measure_place` takes of a model, as far as it is known."""
    keys = {"hidden": "hidden_size", "inner": "intermediate_size", "vocabulary": "vocab_size"}
    known = {name: facts.number(key) for name, key in keys.items()}
    return {name: number for name, number in known.items() if number is not None}
