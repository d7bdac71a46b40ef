"""Can the environments be imported and built, and do their prompts fit?

In two parts, because building takes seconds: `examine_sources` reads source code without running it,
`examine_prompts` builds each environment and tokenises its longest prompts. An environment that needs an endpoint
has a method `unreachable() -> str | None`, which asks for it and says what is wrong.
"""

import ast
import contextlib
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rezero_ray.chat import tool_record
from rezero_ray.config import Config, Problem
from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.problems import shown
from rezero_ray.environments_index import BUILT_IN, install_hint, load_environment, module_of, source_of
from rezero_ray.foreign.loading import time_limits
from rezero_ray.foreign.rezero_child.adaptation import adapt
from rezero_ray.preflight.findings import Findings, together
from rezero_ray.preflight.foreign_environments import Seen, interpreter_of, lives_elsewhere, look_into
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.tools import examine_tools

PROMPTS_TOKENISED = 256  # the longest by characters; the longest by tokens is among them for ordinary text


def examine_sources(config: Config, *, must_be_here: bool) -> Findings:
    """Importable, with a `load_environment` that takes the given args. `must_be_here` is False for a dry run,
    where a hub environment that is not installed gets a note: the run may be for another machine."""
    found = Findings()
    for index, env in enumerate(config.orchestrator.env):
        if lives_elsewhere(env):
            if not must_be_here and not interpreter_of(env).ready:
                found.notes.append(f"environment {env.id}: its interpreter is made when the run is prepared")
            continue
        source = source_of(env.id)
        if source is not None:
            found += together([Findings([*_signature(index, env.id, env.args, source)])])
        elif "/" in env.id and not must_be_here:
            found.notes.append(f"environment {env.id} is not installed here: {install_hint(env.id)}")
        else:
            found.problems.append(_not_importable(index, env.id))
    return found


def _not_importable(index: int, env_id: str) -> Problem:
    close = difflib.get_close_matches(env_id, BUILT_IN, n=1)
    remedy = install_hint(env_id)
    if env_id in BUILT_IN:
        remedy = "install this repository (make install), or run from its root"
    elif close:
        remedy = f'write "{close[0]}"; or {remedy}'
    elif "built-in" not in remedy:
        remedy += f"; the built-in ones are {', '.join(BUILT_IN)}"
    what = f"no module {module_of(env_id)} can be imported"
    return Problem(f"orchestrator.env.{index}.id", what, remedy, shown(env_id))


def _signature(index: int, env_id: str, args: Mapping[str, Any], source: str) -> Iterator[Problem]:
    """Reads `def load_environment(...)`; a module that gets it by an import is left to examine_prompts."""
    try:
        text = Path(source).read_text("utf-8") if source else ""
        body = ast.parse(text).body
    except (OSError, ValueError, SyntaxError):
        return
    functions = [
        node for node in body if isinstance(node, ast.FunctionDef) and node.name == "load_environment"
    ]
    if not functions:
        if text and "load_environment" not in text and "import *" not in text:
            what = f"module {module_of(env_id)} has no load_environment: it is no verifiers environment"
            remedy = f"the built-in ones are {', '.join(BUILT_IN)}"
            yield Problem(f"orchestrator.env.{index}.id", what, remedy, shown(env_id))
        return
    signature = functions[-1].args
    takes = [argument.arg for argument in (*signature.args, *signature.kwonlyargs)]
    for name in () if signature.kwarg else [name for name in args if name not in takes]:
        close = difflib.get_close_matches(name, takes, n=1)
        remedy = f"write {close[0]}" if close else f"it takes {', '.join(takes) or 'none'}"
        what = f"load_environment of {env_id} has no argument {name}"
        yield Problem(f"orchestrator.env.{index}.args.{name}", what, remedy, shown(args[name]))


def examine_prompts(config: Config, facts: ModelFacts | None) -> Findings:
    """Builds each environment and measures its longest prompts with the model's tokenizer and template."""
    tokenizer = _tokenizer(facts)
    found = Findings()
    for index, env in enumerate(config.orchestrator.env):
        if lives_elsewhere(env):
            seen = look_into(index, env, seconds=config.limits.engine_start, prompts=PROMPTS_TOKENISED)
        else:
            seen = _built_here(index, env)
        if isinstance(seen, Problem):
            found.problems.append(seen)
            continue
        found.notes += seen.notes
        found += examine_tools(config, index, seen.tools, tokenizer)
        if not seen.prompts:
            problem = Problem(f"orchestrator.env.{index}", f"{env.id} has no prompts", "check its args")
            found.problems.append(problem)
        elif tokenizer is not None:
            longest = max(_tokens(tokenizer, prompt, seen.tools) for prompt in seen.prompts)
            found += _fits(config, index, longest, seen.turns)
    if tokenizer is None:
        found.notes.append("without the model's tokenizer the length of the prompts is not checked")
    return found


def _built_here(index: int, env: EnvConfig) -> Seen | Problem:
    noise = (
        io.StringIO()
    )  # progress bars and log lines of the environment; its errors are told by the Problem
    try:
        with contextlib.redirect_stderr(noise), contextlib.redirect_stdout(noise):
            environment = load_environment(env.id, env.args)
            tools, notes = _adapted(environment, env)
            prompts = _longest_prompts(environment)
            trouble = environment.unreachable() if hasattr(environment, "unreachable") else None
    except Exception as error:  # an environment is foreign code: whatever it raises is told, not thrown
        what = f"{env.id} cannot be built: {type(error).__name__}: {error}"
        return _not_built(index, env.args, what)
    if trouble:
        return Problem(f"orchestrator.env.{index}.args", trouble, "start it, or correct what args say of it")
    return Seen(prompts, int(getattr(environment, "max_turns", 1)), tools, notes)


def _adapted(environment: Any, env: EnvConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """The tools that it offers, and what the workers will change about it (`adaptation.adapt`)."""
    if not hasattr(environment, "rubric"):
        return [], []
    changed = adapt(
        environment,
        dict_messages=env.dict_messages,
        max_turns=env.max_turns,
        limits=time_limits(env),
        ours=env.id in BUILT_IN,
    )
    return list(changed.tools), [f"environment {env.id}: {note}" for note in changed.notes]


def _not_built(index: int, args: Mapping[str, Any], what: str) -> Problem:
    if args:
        return Problem(f"orchestrator.env.{index}.args", what, "change or drop the args", shown(dict(args)))
    return Problem(f"orchestrator.env.{index}.id", what, "call its load_environment() by itself to see more")


def _fits(config: Config, index: int, longest: int, turns: int) -> Findings:
    env_id, max_tokens = config.orchestrator.env[index].id, config.orchestrator.sampling.max_tokens
    limits = {
        "seq_len": config.seq_len,
        "inference.model.max_model_len": config.inference.model.max_model_len or config.seq_len,
    }
    found = Findings()
    key, limit = min(limits.items(), key=lambda item: item[1])
    if longest + max_tokens > limit:
        what = (
            f"the longest prompt of {env_id} has {longest} tokens; with max_tokens = {max_tokens} it needs "
        )
        what += f"{longest + max_tokens}"
        remedy = f"write at least {longest + max_tokens}, or lower orchestrator.sampling.max_tokens"
        found.problems.append(Problem(key, what, remedy, shown(limit), others=("seq_len",)))
    elif turns > 1 and longest + turns * max_tokens > limit:
        found.notes.append(
            f"{env_id}: a rollout of {turns} turns may reach {longest + turns * max_tokens} tokens and more "
            f"({key} = {limit}): those that do end early"
        )
    return found


def _longest_prompts(environment: Any) -> list[Any]:
    prompts = list(environment.get_dataset()["prompt"])
    return sorted(prompts, key=lambda prompt: len(str(prompt)), reverse=True)[:PROMPTS_TOKENISED]


def _tokenizer(facts: ModelFacts | None) -> Any:
    """The model's own; read from tokenizer.json, because AutoTokenizer imports torch (8 s)."""
    if facts is None or facts.folder is None or not (facts.folder / "tokenizer.json").exists():
        return None
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(facts.folder))


def _tokens(tokenizer: Any, prompt: Any, tools: Sequence[Any] = ()) -> int:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    records = [tool_record(tool) for tool in tools] or None
    return len(
        tokenizer.apply_chat_template(messages, tools=records, add_generation_prompt=True, return_dict=False)
    )
