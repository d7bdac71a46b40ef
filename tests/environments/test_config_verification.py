"""What the file generator promises, what the oracles say, and what the rewards tell apart."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from environments.config_verification import environment as config_verification
from environments.config_verification.environment import generate_tasks, reference_answer
from environments.config_verification.files import DEMONSTRATIONS, PROBLEM_COUNTS, ConfigTask
from environments.config_verification.oracle import (
    ConfigOracle,
    OracleError,
    failing_rules,
    oracle_pins,
    shared_oracle,
)
from environments.config_verification.patch import accepted
from environments.config_verification.rules import DEMONSTRATION_RULES, RULE_OF, RULES, Kind, Rule, Settings
from tests.environments.scripted_client import run_rollout, score_texts

ROOT = Path(__file__).parents[2]

HUGE_TEXT = "a" * 10_000


def answer(findings: object, patch: object, confidence: object = 0.9) -> str:
    return json.dumps({"findings": findings, "patch": patch, "confidence": confidence})


def metrics(config: Any, row: dict[str, Any], text: str) -> dict[str, float]:
    state = score_texts(config, row, [text])
    return {**state["metrics"], "reward": state["reward"]}


def row_with(config: Any, problems: int, kind: str = "kubernetes") -> dict[str, Any]:
    for row in [*config.get_dataset(), *config.get_eval_dataset()]:
        info = json.loads(row["info"])
        if len(info["problems"]) == problems and info["kind"] == kind:
            return row
    raise AssertionError("no such task")


def file_of(rule: Rule, settings: Settings) -> ConfigTask:
    """A file about this rule alone."""
    parts = ("Pod",) if rule.part == "Pod" else (rule.part,)
    filled = json.loads(json.dumps(settings).replace("{app}", "elm").replace("{number}", "7"))
    return ConfigTask(rule.kind, parts, "elm", filled, (rule.name,), (rule.name,))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_oracles_tell_broken_from_sound_from_mended(rule: Rule) -> None:
    for settings in rule.sound:
        file = file_of(rule, settings)
        assert rule.name not in failing_rules(file.kind, file.text())
    for settings in rule.broken:
        file = file_of(rule, settings)
        mend = accepted(file.mend(), file.kind, file.settings)
        before, after = failing_rules(file.kind, file.text()), failing_rules(file.kind, file.text(mend))
        assert before - after == {rule.name}
        assert not after - before


@pytest.mark.parametrize("rule", DEMONSTRATION_RULES, ids=lambda rule: rule.name)
def test_the_example_in_the_prompt_is_right_and_of_no_use_for_a_task(rule: Rule) -> None:
    shown, text = DEMONSTRATIONS[rule.kind]
    file, said = shown.split("\n", 1)[1], json.loads(text)
    (setting, value), (old, _) = *said["patch"].items(), *rule.broken[0].items()
    lines = [f"{line[: line.index(old)]}{old}" for line in file.splitlines() if old in line]
    separator = ": " if rule.kind == "kubernetes" else " = "
    mended = file.replace(json.dumps(not value), json.dumps(value))
    assert len(lines) == 1 and setting == old and separator + json.dumps(not value) in file
    assert failing_rules(rule.kind, file) - failing_rules(rule.kind, mended) == {rule.name}
    assert said["findings"] == [rule.name] and rule not in RULES


def test_what_was_woven_in_is_what_the_oracles_find(config: Any) -> None:
    for row in config.get_eval_dataset():
        info = json.loads(row["info"])
        task = config_verification.task_of(info)
        assert task is not None
        assert failing_rules(task.kind, task.text()) & set(task.rules) == set(task.problems)
        assert row["answer"] == (", ".join(task.problems) or "clean")


def test_a_check_that_the_file_tells_checkov_to_skip_still_fails() -> None:
    file = file_of(RULE_OF["open-ssh"], RULE_OF["open-ssh"].broken[0])
    skipping = file.text().replace("{\n", "{\n  # checkov:skip=CKV_AWS_24: we like it\n", 1)
    assert "open-ssh" in failing_rules(file.kind, skipping)


def test_one_turn_only(config: Any) -> None:
    row = config.get_eval_dataset()[0]
    output, client = run_rollout(config, row, [reference_answer(row["info"]), "unused"])
    assert client.calls == 1
    assert output["stop_condition"] == "max_turns_reached"


@pytest.mark.parametrize("kind", ["kubernetes", "terraform"])
def test_from_prose_to_the_right_answer_every_step_earns_more(config: Any, kind: str) -> None:
    row = row_with(config, 2, kind)
    right = json.loads(reference_answer(row["info"]))
    first = right["findings"][0]
    mend = dict([next(iter(right["patch"].items()))])
    ladder = [
        "",
        "The file looks odd to me.",
        f"The file breaks {first}.",
        f'{{"findings": ["{first}"]',
        answer([first], None, None),
        answer([first], {}, 0.5),
        answer(right["findings"], {}, 0.9),
        answer(right["findings"], mend, 0.9),
        answer(right["findings"], right["patch"], 0.7),
        answer(right["findings"], right["patch"], 0.95),
    ]
    rewards = [metrics(config, row, text)["reward"] for text in ladder]
    assert rewards == sorted(set(rewards))


def test_a_clean_file_rewards_saying_so_and_leaving_it_alone(config: Any) -> None:
    row = row_with(config, 0)
    info = json.loads(row["info"])
    rule = info["rules"][0]
    needless = {name: value for name, value in info["settings"].items() if value is not None}
    ladder = [
        "The file is fine.",
        answer([rule], needless),
        answer([rule], {}),
        answer([], needless),
        answer([], {}, 0.5),
        answer([], {}, 0.95),
    ]
    rewards = [metrics(config, row, text)["reward"] for text in ladder]
    assert rewards == sorted(set(rewards))
    assert rewards[2] < 0 < rewards[3]


def test_findings_weigh_by_severity(config: Any) -> None:
    for row in config.get_eval_dataset():
        problems = json.loads(row["info"])["problems"]
        by_weight = sorted(problems, key=lambda name: RULE_OF[name].weight)
        scores = [metrics(config, row, answer([name], {}))["findings"] for name in by_weight]
        assert scores == sorted(scores)
        if problems:
            assert metrics(config, row, answer(problems, {}))["findings"] == 1
            assert metrics(config, row, answer([], {}))["findings"] == -1


def test_naming_every_rule_or_setting_every_setting_does_not_pay(config: Any) -> None:
    row = row_with(config, 1)
    info, right = json.loads(row["info"]), json.loads(reference_answer(row["info"]))
    everything = metrics(config, row, answer(info["rules"], right["patch"]))
    assert everything["findings"] < 0
    flags = {name: value for name, value in info["settings"].items() if name not in right["patch"]}
    assert metrics(config, row, answer(right["findings"], {**right["patch"], **flags}))["repair"] < 0.6


def test_a_patch_that_breaks_what_was_sound_loses(config: Any) -> None:
    for row in config.get_eval_dataset():
        info = json.loads(row["info"])
        if "privileged" in info["rules"] and "privileged" not in info["problems"]:
            right = json.loads(reference_answer(row["info"]))
            harmful = answer(right["findings"], {**right["patch"], "privileged": True})
            assert metrics(config, row, harmful)["repair"] < metrics(config, row, json.dumps(right))["repair"]
            return
    raise AssertionError("no such task")


def test_calibration_is_best_at_the_true_confidence(config: Any) -> None:
    row, grid = row_with(config, 1), [0.0, 0.25, 0.5, 0.75, 1.0]
    right = json.loads(reference_answer(row["info"]))["findings"]

    def scores(findings: list[str]) -> list[float]:
        return [metrics(config, row, answer(findings, {}, c))["calibration"] for c in grid]

    assert scores(right) == sorted(scores(right))
    assert scores(["no-such-rule"]) == sorted(scores(["no-such-rule"]), reverse=True)
    for missing in (-0.1, 1.1, "0.9", None, True, float("nan")):
        assert metrics(config, row, answer(right, {}, missing))["calibration"] == -1


SETTINGS: dict[Kind, Settings] = {
    "kubernetes": {
        "hostNetwork": True,
        "image": "elm:latest",
        "path": "/etc",
        "value": "x",
        "add": None,
        "cpu": "1",
    },
    "terraform": {"cidr_blocks": ["0.0.0.0/0"], "password": "x", "Action": ["*"], "acl": "public-read"},
}


@pytest.mark.parametrize(
    ("patch", "kind", "taken"),
    [
        ({"hostNetwork": False}, "kubernetes", {"hostNetwork": False}),
        ({"spec.hostNetwork": "false"}, "kubernetes", {"hostNetwork": False}),
        ({"hostNetwork": None, "path": None}, "kubernetes", {"hostNetwork": None, "path": None}),
        ({"hostNetwork": "no\nhostPID: true", "hostPID": False}, "kubernetes", {}),
        ({"image": "elm:1.2"}, "kubernetes", {"image": "elm:1.2"}),
        ({"image": "oak:1.2"}, "kubernetes", {}),
        ({"image": "elm:1 # checkov:skip=CKV_K8S_14"}, "kubernetes", {}),
        ({"path": "/srv/../x y", "value": "a\n- b", "add": ["a b"], "cpu": HUGE_TEXT}, "kubernetes", {}),
        ({"metadata": {"annotations": {"checkov.io/skip1": "CKV_K8S_16"}}}, "kubernetes", {}),
        ({"cidr_blocks": ["10.0.0.0/8"]}, "terraform", {"cidr_blocks": ["10.0.0.0/8"]}),
        ({"cidr_blocks": []}, "terraform", {}),
        ({"cidr_blocks": ["10.0.0.0/99"]}, "terraform", {}),
        ({"password": "var.password"}, "terraform", {"password": "var.password"}),
        ({"password": '${file("x")}', "Action": ['a"b'], "acl": "x", "bucket": "y"}, "terraform", {}),
        ({f"x{n}": 1 for n in range(50)} | {"acl": "private"}, "terraform", {}),
    ],
)
def test_only_known_settings_with_values_of_their_kind_are_applied(
    patch: dict[str, Any], kind: Kind, taken: Settings
) -> None:
    assert accepted(patch, kind, SETTINGS[kind]) == taken


def test_every_kind_of_problem_occurs_a_quarter_is_clean_and_the_splits_share_no_application() -> None:
    train, held_out = generate_tasks(seed=2, num_train=1000, num_eval=200)
    for tasks in (train, held_out):
        assert {name for task in tasks for name in task.problems} == {rule.name for rule in RULES}
        assert {len(task.problems) for task in tasks} == set(PROBLEM_COUNTS)
        assert 0.15 < sum(not task.problems for task in tasks) / len(tasks) < 0.35
    assert not {task.app.split("-")[0] for task in train} & {task.app.split("-")[0] for task in held_out}


def stand_in(folder: Path, script: str) -> Path:
    """A program in the place of the oracles' interpreter."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param("exec sleep 60", "no answer within 0.2 s", id="hangs"),
        pytest.param("echo no such module >&2; exit 1", "no such module", id="dies"),
        pytest.param("echo hello; exec sleep 60", "Expecting value", id="speaks in riddles"),
        pytest.param(
            """echo '{"checkov": "1.0"}'; exec sleep 60""", "Renew it: .*uv pip install", id="is old"
        ),
    ],
)
def test_oracles_that_cannot_answer_are_an_error_and_never_a_score(
    tmp_path: Path, script: str, says: str
) -> None:
    oracle = ConfigOracle(stand_in(tmp_path, script), start_seconds=0.2)
    with pytest.raises(OracleError, match=says):
        oracle.failing("kubernetes", "kind: Pod")


def test_the_process_is_renewed_after_so_many_files(tmp_path: Path) -> None:
    versions = json.dumps(oracle_pins())
    script = f"""read orders; echo '{versions}'; while read file; do echo '{{"failed": []}}'; done"""
    oracle = ConfigOracle(stand_in(tmp_path, script), files_per_process=2)
    processes = []
    for _ in range(5):
        assert oracle.failing("kubernetes", "kind: Pod") == frozenset()
        processes.append(oracle.process_id)
    oracle.close()
    assert processes[0] == processes[1] != processes[2] == processes[3] != processes[4]
    assert oracle.process_id is None


def test_without_its_oracles_the_environment_does_not_load_and_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ConfigOracle(tmp_path / "nowhere")
    monkeypatch.setattr(config_verification, "shared_oracle", lambda: missing)
    with pytest.raises(OracleError, match=r"uv venv .* && .*uv pip install .*config-oracles.txt"):
        config_verification.load_environment(num_train=1, num_eval=1)


def test_a_killed_oracle_is_started_again_and_a_broken_file_is_an_error() -> None:
    oracle = shared_oracle()
    file = file_of(RULE_OF["privileged"], RULE_OF["privileged"].broken[0])
    found = oracle.failing(file.kind, file.text())
    first = oracle.process_id
    assert first is not None and "privileged" in found
    os.kill(first, signal.SIGKILL)
    assert oracle.failing(file.kind, file.text()) == found
    assert oracle.process_id not in (None, first)
    with pytest.raises(OracleError, match="cannot judge"):
        oracle.failing("terraform", "resource {")


@pytest.mark.slow
def test_the_oracles_end_with_the_process_that_started_them() -> None:
    program = (
        "import os; from environments.config_verification.oracle import shared_oracle as oracle; oracle().start(); "
        "print(oracle().process_id, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=100, check=False
    )
    child = Path("/proc") / done.stdout.decode().strip()
    assert done.returncode == -signal.SIGKILL and child.name.isdigit()
    deadline = time.monotonic() + 30
    while child.exists() and "oracle_worker" in (child / "cmdline").read_text():
        assert time.monotonic() < deadline, "the oracles outlive their parent"
        time.sleep(0.1)
