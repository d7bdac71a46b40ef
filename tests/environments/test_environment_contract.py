"""What every built-in environment promises: data, bounds, weights, determinism, pages that tell the truth."""

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import verifiers as vf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.code_vulnerability import environment as code_vulnerability
from environments.config_verification import environment as config_verification
from environments.network_logs import environment as network_logs
from environments.phishing_detection import environment as phishing_detection
from environments.redteam_attack import environment as redteam_attack
from rezero_ray.foreign.rezero_child.examples import solution_texts
from rezero_ray.preflight.probes import HOSTILE_TEXTS
from tests.environments.page_examples import PAGES, PageExample, examples, task_number
from tests.environments.scripted_client import ScriptedClient, run_rollout, score_texts

MODULES = (code_vulnerability, phishing_detection, redteam_attack, config_verification, network_logs)

KEYWORDS = (
    "phishing legitimate urgent verify account password story pretend role play translate French spell "
    "letter manager audit suppose what if hero pirate code word secret say tell reveal findings patch "
    "confidence privileged host-network open-ssh plain-password latest-tag clean false "
    "scan brute-force tunnel beacon exfil lateral flood benign label confidence lines "
    "CWE-78 CWE-89 CWE-502 line 5 shell SQL eval hash clean import return"
)


def environment_of(module: ModuleType, request: pytest.FixtureRequest) -> vf.Environment:
    return request.getfixturevalue(module.__name__.split(".")[1].partition("_")[0])


def value_of(component: Callable[..., Any], completion: object, info: object) -> float:
    """What a component gives when called bare: verifiers would turn an exception into 0.0."""
    arguments = {"completion": completion, "info": info}
    asked = inspect.signature(component).parameters
    value = component(**{name: value for name, value in arguments.items() if name in asked})
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def echo(row: dict[str, Any]) -> str:
    return "\n".join(message["content"] for message in row["prompt"])


@pytest.fixture(params=MODULES, ids=lambda module: module.ENVIRONMENT_ID)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def env(module: ModuleType, request: pytest.FixtureRequest) -> vf.Environment:
    return environment_of(module, request)


def test_default_sizes_are_a_thousand_for_training_and_two_hundred_held_out(module: ModuleType) -> None:
    defaults = module.load_environment.__kwdefaults__
    assert defaults["num_train"] >= 1000
    assert defaults["num_eval"] >= 200
    train, held_out = module.generate_tasks(seed=0, num_train=1000, num_eval=200)
    prompts = {json.dumps(task.messages()) for task in train}
    held_out_prompts = {json.dumps(task.messages()) for task in held_out}
    assert (len(prompts), len(held_out_prompts)) == (1000, 200)
    assert not prompts & held_out_prompts


def test_same_seed_same_tasks_and_another_seed_others(module: ModuleType) -> None:
    first, again, other = (module.generate_tasks(seed=seed, num_train=50, num_eval=10) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    shorter = module.generate_tasks(seed=3, num_train=20, num_eval=5)
    assert shorter == (first[0][:20], first[1][:5])


def test_rows_hold_plain_strings_that_arrow_cannot_merge(env: vf.Environment) -> None:
    for dataset in (env.get_dataset(), env.get_eval_dataset()):
        assert set(dataset.column_names) == {"prompt", "answer", "info", "example_id"}
        assert all(isinstance(json.loads(row["info"]), dict) for row in dataset)
        assert all(isinstance(row["answer"], str) and row["answer"] for row in dataset)


def test_reference_scores_at_least_nine_tenths_on_every_task(module: ModuleType, env: vf.Environment) -> None:
    for row in [*env.get_dataset(), *env.get_eval_dataset()]:
        output, client = run_rollout(env, row, solution_texts(module, row["info"]) or [])
        assert output["error"] is None
        assert output["reward"] >= 0.9
        assert client.calls == len(client.script)


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize(
    "worthless",
    [
        pytest.param(lambda row: "", id="empty"),
        pytest.param(echo, id="prompt echo"),
        pytest.param(lambda row: row["prompt"][-1]["content"], id="task echo"),
        pytest.param(lambda row: row["prompt"][-2]["content"], id="demonstration echo"),
        pytest.param(lambda row: KEYWORDS, id="keywords"),
    ],
)
def test_worthless_answers_score_at_most_zero(
    env: vf.Environment, worthless: Callable[[dict[str, Any]], str], turns: int
) -> None:
    for row in env.get_eval_dataset():
        assert score_texts(env, row, [worthless(row)] * turns)["reward"] <= 0


def test_no_answer_at_all_scores_minus_one(env: vf.Environment) -> None:
    assert score_texts(env, env.get_eval_dataset()[0], [])["reward"] == pytest.approx(-1, abs=1e-6)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=10,
)
SETTINGS = (
    "hostNetwork",
    "image",
    "path",
    "spec.value",
    "cidr_blocks",
    "password",
    "Action",
    "add",
    "memory",
)
ANSWER_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "label": st.sampled_from(["phishing", "legitimate", "both", "", "scan", "benign"]) | JSON_VALUES,
        "confidence": st.floats() | st.integers() | JSON_VALUES,
        "evidence": st.lists(st.text(max_size=40), max_size=6) | JSON_VALUES,
        "findings": st.lists(st.sampled_from(KEYWORDS.split()), max_size=6) | JSON_VALUES,
        "patch": st.dictionaries(st.sampled_from(SETTINGS), JSON_VALUES, max_size=6) | JSON_VALUES,
        "lines": st.lists(st.integers(-3, 120), max_size=12) | JSON_VALUES,
        "extra": JSON_VALUES,
    },
)
PATCH_LIKE = st.tuples(
    st.sampled_from(["CWE-78 line 5", "CWE-89 lines 3-99999", "CWE-00 line 0", "clean", "CWE-502 line 1"]),
    st.sampled_from(["    pass", "import os", ")" * 50, "\x00", "x = " + "(" * 500, "\ud800"]) | st.text(),
)
HOSTILE = st.sampled_from((*HOSTILE_TEXTS, "\ud800"))
TEXTS = st.one_of(
    st.text(max_size=300),
    ANSWER_LIKE.map(json.dumps),
    PATCH_LIKE.map("\n".join),
    ANSWER_LIKE.map(lambda value: f"Sure! {json.dumps(value)[:-3]}"),
    st.lists(st.sampled_from(KEYWORDS.split()), max_size=40).map(" ".join),
    HOSTILE,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.ENVIRONMENT_ID)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), task=st.integers(0, 19))
def test_no_text_crashes_a_component_or_leaves_the_bounds(
    module: ModuleType, request: pytest.FixtureRequest, texts: list[str], task: int
) -> None:
    env = environment_of(module, request)
    row = env.get_eval_dataset()[task]
    completion = [{"role": "assistant", "content": text} for text in texts]
    for component in module.COMPONENTS:
        assert -1 <= value_of(component, completion, json.loads(row["info"])) <= 1
    assert -1 <= score_texts(env, row, texts)["reward"] <= 1


def test_foreign_info_never_raises(module: ModuleType) -> None:
    foreign: list[object] = [None, "", "not json", "[]", {}, {"scenario": 3}, {"scenario": {}}]
    for info in [
        *foreign,
        {"indicators": 7},
        {"lines": 3, "first": "x"},
        {"settings": 3},
        {"scenario": None, "max_turns": "x"},
    ]:
        for component in module.COMPONENTS:
            assert -1 <= value_of(component, [{"role": "assistant", "content": "hello"}], info) <= 1


def test_components_are_the_metrics_and_their_weighted_sum_is_the_reward(
    module: ModuleType, env: vf.Environment
) -> None:
    state = score_texts(env, env.get_eval_dataset()[0], ["Let us play a story. It is phishing, is it not?"])
    weights = module.DEFAULT_WEIGHTS
    assert sum(weights.values()) == pytest.approx(1)
    assert set(state["metrics"]) == {*weights, "num_turns"}
    expected = sum(weight * state["metrics"][name] for name, weight in weights.items())
    assert state["reward"] == pytest.approx(expected, abs=1e-6)


def test_weights_are_normalised_and_change_the_reward(module: ModuleType, given_back_signals: None) -> None:
    only_form = dict.fromkeys(module.DEFAULT_WEIGHTS, 0.0) | {"form": 7.0}
    env = module.load_environment(num_train=1, num_eval=1, weights=only_form)
    state = score_texts(env, env.get_eval_dataset()[0], ["It is a story."])
    assert state["reward"] == pytest.approx(state["metrics"]["form"], abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"weights": {"style": 1.0}}, {"weights": {"form": -1.0}}, {"max_token": 5}], ids=str
)
def test_wrong_arguments_are_refused_with_what_is_valid(module: ModuleType, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"valid|>= 0"):
        module.load_environment(num_train=1, num_eval=1, **wrong)


def page_cases() -> list[Any]:
    cases = []
    for module in MODULES:
        page = (PAGES / f"{module.ENVIRONMENT_ID}.md").read_text()
        for example in examples(page):
            cases.append(pytest.param(module, task_number(page), example, id=example.title))
    return cases


def test_the_page_shows_the_task_that_its_examples_answer(module: ModuleType, env: vf.Environment) -> None:
    page = (PAGES / f"{module.ENVIRONMENT_ID}.md").read_text()
    for message in env.get_eval_dataset()[task_number(page)]["prompt"]:
        assert message["content"] in page


@pytest.mark.parametrize(("module", "task", "example"), page_cases())
def test_scores_on_the_page_are_the_scores_of_the_code(
    module: ModuleType, task: int, example: PageExample, request: pytest.FixtureRequest
) -> None:
    env = environment_of(module, request)
    row = env.get_eval_dataset()[task]
    state = score_texts(env, row, example.texts)
    scored = {**state["metrics"], "reward": state["reward"]}
    assert {name: round(scored[name], 2) for name in example.scores} == example.scores


def test_a_group_is_scored_as_its_members_are(env: vf.Environment) -> None:
    row = env.get_eval_dataset()[0]
    texts: Sequence[str] = ["", "It is phishing.", "Please tell me a story."]

    async def score_together() -> list[float]:
        states = []
        for text in texts:
            state = await env.init_state(row, ScriptedClient([]), "script", {})
            state["completion"] = [vf.AssistantMessage(content=text)]
            states.append(state)
        await env.rubric.score_group(states)
        return [state["reward"] for state in states]

    assert asyncio.run(score_together()) == [score_texts(env, row, [text])["reward"] for text in texts]
