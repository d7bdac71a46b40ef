"""What the log generator promises, and what the rewards of `network-logs` tell apart."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from environments.network_logs.environment import calibration, evidence, generate_tasks, reference_answer
from environments.network_logs.episodes import ATTACKS, LOOK_ALIKES, ROLES
from environments.network_logs.sessions import BENIGN, BENIGN_SHARE, DEMONSTRATIONS, LABELS, NetworkTask
from tests.environments.log_reader import outside, parse, read_window
from tests.environments.scripted_client import run_rollout, score_texts


def answer(label: str, confidence: float, lines: Any) -> str:
    return json.dumps({"label": label, "confidence": confidence, "lines": list(lines)})


def window(task: dict[str, Any]) -> range:
    return range(task["first"], task["first"] + task["count"])


@pytest.fixture(scope="module")
def tasks() -> list[NetworkTask]:
    train, held_out = generate_tasks(seed=2, num_train=1000, num_eval=200)
    return [*train, *held_out]


@pytest.fixture(scope="module")
def row(network: Any) -> dict[str, Any]:
    return next(row for row in network.get_eval_dataset() if row["answer"] == "exfil")


@pytest.fixture(scope="module")
def task(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["info"])


def test_one_turn_only(network: Any, row: dict[str, Any]) -> None:
    output, client = run_rollout(network, row, [reference_answer(row["info"]), "unused"])
    assert client.calls == 1
    assert output["stop_condition"] == "max_turns_reached"


def test_from_prose_to_the_right_answer_every_step_earns_more(
    network: Any, row: dict[str, Any], task: dict[str, Any]
) -> None:
    right, lines = task["label"], task["lines"]
    ladder = [
        "",
        "The log looks odd to me.",
        f"The log is {BENIGN}.",
        f"The log is {right}.",
        f"{{label: {right}}}",
        f'{{"label": "{right}", "confidence": 0.9',
        json.dumps({"label": right}),
        answer(BENIGN, 0.9, [1, 2]),
        answer(BENIGN, 0.9, lines),
        answer("scan", 0.9, lines),
        answer(right, 0.3, lines),
        answer(right, 0.95, lines),
    ]
    rewards = [score_texts(network, row, [text])["reward"] for text in ladder]
    assert rewards == sorted(set(rewards))


def test_a_missed_attack_costs_more_than_a_false_alarm_and_that_more_than_the_wrong_kind(
    network: Any,
) -> None:
    def label_score(right: str, stated: str) -> float:
        row = next(row for row in network.get_eval_dataset() if row["answer"] == right)
        text = answer(stated, 0.5, json.loads(row["info"])["lines"])
        return score_texts(network, row, [text])["metrics"]["label"]

    scores = [label_score("exfil", BENIGN), label_score(BENIGN, "exfil"), label_score("exfil", "scan")]
    assert scores == sorted(set(scores))
    assert scores[-1] < label_score("exfil", "exfil") == pytest.approx(1)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("named", ["deciding", "one", "all", "none of the window"])
def test_the_honest_confidence_scores_best_on_average_whatever_the_lines(
    task: dict[str, Any], named: str, broken: bool
) -> None:
    lines = {"deciding": task["lines"], "one": task["lines"][:1], "all": window(task)}.get(named, [1])
    grid = [step / 10 for step in range(11)]

    def expected(chance: float, confidence: float) -> float:
        text = answer("exfil", confidence, lines)[: -1 if broken else None]
        return sum(
            share * calibration(text, task | {"label": label})
            for share, label in ((chance, "exfil"), (1 - chance, "scan"))
        )

    for chance in grid:
        assert max(grid, key=lambda confidence: expected(chance, confidence)) == chance


def test_evidence_tells_invented_from_all_from_some_from_the_deciding_lines(
    network: Any, row: dict[str, Any], task: dict[str, Any]
) -> None:
    deciding = task["lines"]
    others = [number for number in window(task) if number not in deciding]
    choices = [[11, 12], others, window(task), [*deciding[1:], others[0]], deciding[1:], deciding]
    states = [score_texts(network, row, [answer(task["label"], 0.9, lines)]) for lines in choices]
    scores = [state["metrics"]["evidence"] for state in states]
    assert scores[0] == scores[1] == -1
    assert scores[2] == -0.5
    assert scores[1:] == sorted(set(scores[1:]))
    assert scores[-1] == 1


@pytest.mark.parametrize("spelled", ["brute-force", "Brute Force", " BRUTE-FORCE "])
def test_a_label_is_read_whatever_its_case_and_blanks(network: Any, spelled: str) -> None:
    row = next(row for row in network.get_eval_dataset() if row["answer"] == "brute-force")
    text = answer(spelled, 0.95, json.loads(row["info"])["lines"])
    assert score_texts(network, row, [text])["metrics"]["label"] == pytest.approx(1)


@pytest.mark.parametrize("lines", [None, "21", [], [True], [1.5], ["x"], [[21]], {"21": 1}])
def test_lines_that_are_no_list_of_numbers_count_as_missing(
    network: Any, row: dict[str, Any], lines: object
) -> None:
    text = json.dumps({"label": "exfil", "confidence": 0.9, "lines": lines})
    assert score_texts(network, row, [text])["metrics"]["evidence"] == -1


def test_stuffed_lines_score_at_most_zero_even_with_the_right_label(network: Any) -> None:
    for row in network.get_eval_dataset():
        task = json.loads(row["info"])
        copied = [demonstration.lines for demonstration in DEMONSTRATIONS]
        for lines in (window(task), [*window(task)] * 3, range(100), range(-5, 15), *copied):
            assert score_texts(network, row, [answer(row["answer"], 1.0, lines)])["reward"] <= 0


def test_lines_picked_blindly_earn_less_than_a_single_deciding_line(tasks: list[NetworkTask]) -> None:
    rng = random.Random(0)

    def mean_evidence(pick: Callable[[NetworkTask], list[int]]) -> float:
        scores = [evidence(answer(task.label, 0.9, pick(task)), task.info()) for task in tasks]
        return sum(scores) / len(scores)

    blind = mean_evidence(lambda task: rng.sample(window(task.info()), 3))
    assert blind < mean_evidence(lambda task: [task.lines[0]]) < 0


def test_a_reader_of_the_window_alone_names_every_label_and_every_line_of_an_attack(
    tasks: list[NetworkTask],
) -> None:
    for task in tasks:
        label, lines = read_window(task.log)
        assert label == task.label, task.log
        if label != BENIGN:
            assert lines == task.lines, task.log


def test_every_attack_and_every_look_alike_occurs_and_background_stands_beside_it(
    tasks: list[NetworkTask],
) -> None:
    assert {task.label for task in tasks} == set(LABELS)
    names = [episode.__name__ for pair in LOOK_ALIKES.values() for episode in pair]
    assert {task.episode for task in tasks if task.label == BENIGN} == set(names)
    assert set(LOOK_ALIKES) == set(ATTACKS)
    share = sum(task.label == BENIGN for task in tasks) / len(tasks)
    assert abs(share - BENIGN_SHARE) < 0.04
    for task in tasks:
        assert {*task.lines} < {*window(task.info())}
        assert task.count - len(task.lines) >= 2


def test_numbers_and_times_run_on_and_no_demonstration_has_a_number_of_a_window(
    tasks: list[NetworkTask],
) -> None:
    for task in tasks:
        _, lines = parse(task.log)
        assert [line.number for line in lines] == [*window(task.info())]
        assert [line.time for line in lines] == sorted(line.time for line in lines)
        assert all(set(shown.lines).isdisjoint(window(task.info())) for shown in DEMONSTRATIONS)


@pytest.mark.parametrize("role", ROLES)
def test_an_approved_name_alone_does_not_decide(tasks: list[NetworkTask], role: str) -> None:
    labels = set()
    for task in tasks:
        known, lines = parse(task.log)
        if any(known[role] in (line.source, line.target) for line in lines):
            labels.add(task.label)
    assert labels == set(LABELS)


def test_hosts_and_outside_names_of_the_splits_differ_and_all_domains_are_reserved() -> None:
    names = []
    for split in generate_tasks(seed=2, num_train=1000, num_eval=200):
        words = set()
        for task in split:
            known, lines = parse(task.log)
            domains = re.findall(r"[\w-]+\.\w+(?= |,|$)", task.log, re.MULTILINE)
            assert all(outside(domain) for domain in domains)
            words |= {*known.values(), *domains, *(line.source for line in lines)}
            words |= {line.target for line in lines} - {"dns", "mail"}
        names.append(words)
    assert not names[0] & names[1]
