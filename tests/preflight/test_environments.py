"""Environments: found, built, and their prompts measured."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rezero_ray.config import Config, load_config
from rezero_ray.environments_index import (
    BUILT_IN,
    install_hint,
    load_environment,
    loader_of,
    module_of,
    source_of,
)
from rezero_ray.preflight import environments, run_directory
from rezero_ray.preflight.environments import examine_prompts, examine_sources
from rezero_ray.preflight.memory import adapter_parameters
from rezero_ray.preflight.model_facts import find_model
from rezero_ray.preflight.run_directory import examine_output
from rezero_ray.run_directory import RunDirectory
from tests.config.run_request import write_right

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a module importable under a name, for this test."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


def config_with(tmp_path: Path, *flags: str) -> Config:
    return load_config([write_right(tmp_path)], flags)


def test_built_in_ids_mean_our_modules_and_others_follow_the_rule_of_verifiers() -> None:
    assert module_of("redteam-attack") == "environments.redteam_attack.environment"
    assert module_of("intertwine/sv-env-redteam-attack") == "sv_env_redteam_attack"
    assert all(source_of(env_id) for env_id in BUILT_IN)
    assert source_of("nobody-has-this") is None and source_of("x.y") is None and source_of("..") is None
    assert loader_of("owner/my-env") == "load_environment"


def test_an_id_may_name_the_class_or_function_that_makes_the_environment(
    tmp_path: Path, install: Install
) -> None:
    assert (module_of("verifiers.envs:Some"), loader_of("verifiers.envs:Some")) == ("verifiers.envs", "Some")
    install("rooms", SMALL_ENVIRONMENT.format(turns=1, sizes=[3]) + "class Room(Environment): pass\n")
    assert type(load_environment("rooms:Room", {})).__name__ == "Room"
    config = config_with(tmp_path, "--orchestrator.env.0.id=rooms:Room")
    assert not examine_sources(config, must_be_here=True).problems
    assert not examine_prompts(config, None).problems


@pytest.mark.parametrize(
    ("env_id", "said"),
    [("rooms:Rom", "module rooms has no Rom"), ("romms:Room", "no module romms can be imported")],
)
def test_a_class_that_is_not_there_is_told_without_running_the_module(
    tmp_path: Path, install: Install, env_id: str, said: str
) -> None:
    install("rooms", "raise SystemExit\nclass Room: ...\n")
    flags = [f"--orchestrator.env.0.id={env_id}"]
    (problem,) = examine_sources(config_with(tmp_path, *flags), must_be_here=True).problems
    assert problem.key == "orchestrator.env.0.id" and problem.what.startswith(said)


def test_the_hint_has_the_hubs_command_and_the_built_in_twin() -> None:
    hint = install_hint("intertwine/sv-env-redteam-attack")
    assert "prime env install intertwine/sv-env-redteam-attack" in hint and 'id = "redteam-attack"' in hint


@pytest.mark.parametrize("env_id", ["my-env", "rooms.of.others:Room", "json:Nothing", "requests2"])
def test_no_hint_names_a_package_that_a_stranger_may_own(env_id: str) -> None:
    hint = install_hint(env_id)
    assert f"put {module_of(env_id).partition('.')[0]}.py" in hint and "working directory" in hint
    assert "uv pip install PATH" in hint and "uv pip install " in hint.replace("PATH", "")
    assert f"install {env_id.partition(':')[0]}" not in hint


def test_a_hub_environment_is_a_note_for_a_dry_run_and_refused_for_a_run(tmp_path: Path) -> None:
    config = config_with(tmp_path, "--orchestrator.env.0.id=owner/not-here")
    assert examine_sources(config, must_be_here=False).notes
    assert examine_sources(config, must_be_here=True).problems


def test_an_argument_that_does_not_exist_is_found_without_running_the_module(
    tmp_path: Path, install: Install
) -> None:
    install("strict_env", "raise SystemExit\ndef load_environment(difficulty=1): ...\n")
    flags = ["--orchestrator.env.0.id=strict-env", "--orchestrator.env.0.args.dificulty=2"]
    (problem,) = examine_sources(config_with(tmp_path, *flags), must_be_here=True).problems
    assert problem.key == "orchestrator.env.0.args.dificulty" and problem.remedy == "write difficulty"


def test_what_an_environment_raises_is_told_and_not_thrown(tmp_path: Path, install: Install) -> None:
    install("broken_env", "def load_environment(**args): raise KeyError('TOKEN')\n")
    config = config_with(tmp_path, "--orchestrator.env.0.id=broken-env")
    (problem,) = examine_prompts(config, None).problems
    assert "cannot be built: KeyError: 'TOKEN'" in problem.what


def test_an_environment_that_trains_several_agents_is_named(tmp_path: Path, install: Install) -> None:
    source = """import verifiers as vf
from datasets import Dataset
class MultiAgentEnv(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **rest): return []
class Duel(MultiAgentEnv): pass
def load_environment():
    return Duel(dataset=Dataset.from_list([{"question": "2?", "answer": "2"}]), rubric=vf.Rubric(funcs=[]))
"""
    install("two_agents", source)
    found = examine_prompts(config_with(tmp_path, "--orchestrator.env.0.id=two-agents"), None)
    (problem,) = found.problems
    assert problem.key == "orchestrator.env.0.id"
    assert "Duel (MultiAgentEnv) is not supported: it trains several agents" in problem.what


def test_an_endpoint_that_an_environment_needs_is_asked_for(tmp_path: Path, install: Install) -> None:
    """And not by a dry run, which reads source code and builds nothing."""
    install(
        "needy_env",
        "class Environment:\n"
        "    env_id = env_args = None\n"
        "    def get_dataset(self): return {'prompt': ['x']}\n"
        "    def unreachable(self): return 'http://host/v1 does not answer'\n"
        "def load_environment(): return Environment()\n",
    )
    config = config_with(tmp_path, "--orchestrator.env.0.id=needy-env")
    assert not examine_sources(config, must_be_here=False).problems
    (problem,) = examine_prompts(config, None).problems
    assert problem.what == "http://host/v1 does not answer"


SMALL_ENVIRONMENT = """
class Environment:
    env_id = env_args = None
    max_turns = {turns}
    def get_dataset(self):
        return {{"prompt": [[{{"role": "user", "content": "x" * size}}] for size in {sizes}]}}
def load_environment(): return Environment()
"""


def one_token_a_character(_tokenizer: object, prompt: list[dict[str, str]], _tools: object) -> int:
    return len(prompt[0]["content"])


@pytest.mark.parametrize(("longest", "fits"), [(448, True), (449, False)])  # 512 - max_tokens = 448
def test_the_longest_prompt_must_leave_room_for_the_completion(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, longest: int, fits: bool
) -> None:
    install("sized_env", SMALL_ENVIRONMENT.format(turns=1, sizes=[3, longest, 7]))
    monkeypatch.setattr(environments, "_tokenizer", lambda facts: object())
    monkeypatch.setattr(environments, "_tokens", one_token_a_character)
    found = examine_prompts(config_with(tmp_path, "--orchestrator.env.0.id=sized-env"), None)
    assert [problem.what for problem in found.problems] == (
        [] if fits else ["the longest prompt of sized-env has 449 tokens; with max_tokens = 64 it needs 513"]
    )


@pytest.mark.parametrize(
    ("longest", "said"),
    [
        (1900, "write at least 1964, or lower"),
        (2030, "the model knows 2048 positions: lower orchestrator.sampling.max_tokens to 18"),
        (2048, "the model knows 2048 positions: leave such prompts out"),
    ],
)
def test_no_seq_len_beyond_the_models_positions_is_advised(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, longest: int, said: str
) -> None:
    install("long_env", SMALL_ENVIRONMENT.format(turns=1, sizes=[longest]))
    monkeypatch.setattr(environments, "_tokenizer", lambda facts: object())
    monkeypatch.setattr(environments, "_tokens", one_token_a_character)
    config = config_with(tmp_path, "--orchestrator.env.0.id=long-env")
    (problem,) = examine_prompts(config, find_model(config.model.name)).problems
    assert said in problem.remedy


def test_an_environment_without_prompts_is_refused(tmp_path: Path, install: Install) -> None:
    install("empty_env", SMALL_ENVIRONMENT.format(turns=1, sizes=[]))
    found = examine_prompts(config_with(tmp_path, "--orchestrator.env.0.id=empty-env"), None)
    assert "has no prompts" in found.problems[0].what


def test_turns_that_may_outgrow_the_limit_are_a_note(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("long_env", SMALL_ENVIRONMENT.format(turns=9, sizes=[10]))
    monkeypatch.setattr(environments, "_tokenizer", lambda facts: object())
    monkeypatch.setattr(environments, "_tokens", one_token_a_character)
    monkeypatch.setattr(environments, "_not_continued", lambda tokenizer, tools: None)
    found = examine_prompts(config_with(tmp_path, "--orchestrator.env.0.id=long-env"), None)
    assert not found.problems and "9 turns may reach 586 tokens" in found.notes[0]


def test_prompts_are_measured_with_the_models_own_tokenizer_and_template(tmp_path: Path) -> None:
    """With a tokenizer of one token a word, on the template's words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = config_with(tmp_path)
    facts = find_model(config.model.name)
    assert facts is not None and facts.folder is not None
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(facts.folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.role }} says {{ m.content }} {% endfor %}"
    (facts.folder / "chat_template.jinja").write_text(template)
    prompt = [{"role": "user", "content": "one two three"}]
    assert environments._tokens(environments._tokenizer(facts), prompt) == 5


@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "other thread"])
def test_building_an_environment_leaves_the_signal_handlers_alone(install: Install, thread: bool) -> None:
    """verifiers 0.2.0 sets handlers on construction; in a thread that alone would raise ValueError."""
    install(
        "handler_env",
        "import signal\n"
        "class Environment:\n"
        "    env_id = env_args = None\n"
        "def load_environment():\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "    return Environment()\n",
    )
    before, original = signal.getsignal(signal.SIGTERM), signal.signal
    built: list[object] = []
    if thread:
        worker = threading.Thread(target=lambda: built.append(load_environment("handler-env", {})))
        worker.start()
        worker.join()
    else:
        built.append(load_environment("handler-env", {}))
    assert built and signal.getsignal(signal.SIGTERM) is before and signal.signal is original


def test_an_output_directory_is_only_looked_at(tmp_path: Path) -> None:
    config = config_with(tmp_path, f"--output_dir={tmp_path / 'a' / 'b' / 'c'}")
    assert not examine_output(config, resume=False).problems
    assert not (tmp_path / "a").exists()
    assert "a new one begins" in examine_output(config, resume=True).notes[0]


@pytest.mark.parametrize("held", ["run.json", "metrics.jsonl", "checkpoints"])
def test_whatever_a_run_writes_marks_its_directory(tmp_path: Path, held: str) -> None:
    config = config_with(tmp_path)
    (tmp_path / "out" / held).mkdir(parents=True)
    assert "holds another run" in examine_output(config, resume=False).problems[0].what
    assert not examine_output(config, resume=True).problems


def test_a_run_that_ended_before_its_first_step_is_started_again_and_one_with_a_step_is_not(
    tmp_path: Path,
) -> None:
    config = config_with(tmp_path)
    first = RunDirectory(config, device="cpu")
    first.rewind(0)
    first.end("failed")
    found = examine_output(config, resume=False)
    assert not found.problems
    assert "ended before its first step" in found.notes[0]
    second = RunDirectory(config, device="cpu")
    assert second.run["run_id"] == first.run["run_id"]
    second.add_metrics({"step": 1})
    second.end("failed")
    assert "holds another run" in examine_output(config, resume=False).problems[0].what


@pytest.mark.parametrize("resume", [True, False])
def test_a_directory_that_a_process_holds_is_refused_by_process_and_host(
    tmp_path: Path, resume: bool
) -> None:
    config = config_with(tmp_path)
    holder = RunDirectory(config, device="cpu")
    (problem,) = examine_output(config, resume=resume).problems
    assert problem.key == "output_dir"
    assert f"in use by process {os.getpid()} on {socket.gethostname()}" in problem.what
    holder.end("interrupted")
    assert not examine_output(config, resume=True).problems


def test_a_disk_without_room_for_the_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One checkpoint has 14 bytes a parameter of the adapter: fp32, two moments, bf16."""
    config = config_with(tmp_path, "--ckpt.keep_last=1")
    facts = find_model(config.model.name)
    assert facts is not None
    needed = 2 * 14 * adapter_parameters(config, facts)
    for free, refused in ((needed, False), (needed - 1, True)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(run_directory.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert bool(examine_output(config, facts, resume=False).problems) == refused


def test_a_template_that_refuses_a_prompt_is_told(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> int:
        raise ValueError("the system role is not supported")

    install("sized_env", SMALL_ENVIRONMENT.format(turns=1, sizes=[3]))
    monkeypatch.setattr(environments, "_tokenizer", lambda facts: object())
    monkeypatch.setattr(environments, "_tokens", refuse)
    (problem,) = examine_prompts(config_with(tmp_path, "--orchestrator.env.0.id=sized-env"), None).problems
    assert problem.key == "model.name" and "the system role is not supported" in problem.what


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_an_impossible_directory_name_is_told(tmp_path: Path, name: str) -> None:
    config = config_with(tmp_path).model_copy(update={"output_dir": name})
    assert examine_output(config, resume=False).problems
