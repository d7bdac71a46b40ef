"""A run directory with recorded steps, without a run."""

from pathlib import Path

import pytest

from rezero_ray import cli
from rezero_ray.run_directory import RunDirectory
from tests.record_builders import SMOLLM2, make_config, make_group, make_rollout

PROMPT_IDS = [1, 2, 3, 4]


def write_run(folder: Path, *, steps: int = 2, text: str = "It is phishing.", model: Path = SMOLLM2) -> Path:
    """Each step has prompts 10 and 11 with two rollouts each; `text` is what the first rollout says."""
    config = make_config(output_dir=str(folder / "run"), model__name=str(model))
    directory = RunDirectory(config, device="cpu")
    for step in range(1, steps + 1):
        groups = [
            make_group(
                [
                    make_rollout(
                        PROMPT_IDS,
                        [5, 6, 7],
                        reward=0.75,
                        components={"verdict": 1.0, "form": 0.5},
                        policy_version=step - 1,
                        turns=2,
                        truncated=True,
                    ),
                    make_rollout(PROMPT_IDS, [8], reward=0.25, policy_version=step - 1),
                ],
                index=index,
            )
            for index in (10, 11)
        ]
        groups[0].rollouts[0].text[:] = [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Are you sure?"},
        ]
        directory.add_rollouts(step, groups, [[0.707, -0.707]] * 2)
        directory.add_metrics(
            {"step": step, "reward/mean": 0.5, "loss": 0.0123, "staleness/mean": 0.0, "staleness/max": 0}
        )
    return directory.path


def refused_request(capsys: pytest.CaptureFixture[str], verb: str, *argv: str | Path) -> str:
    """What `rezero VERB` says of a wrong request: exit status 2, nothing on stdout, no traceback."""
    assert cli.main([verb, *map(str, argv)]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert "Traceback" not in printed.err
    return printed.err
