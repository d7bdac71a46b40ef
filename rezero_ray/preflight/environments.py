"""Can the environments be imported and built, and do their prompts fit?

In two parts, because building takes seconds: `examine_sources` reads source code without running it,
`examine_prompts` builds each environment and tokenises its longest prompts, and may try it with answers.
An environment that needs an endpoint has a method `unreachable() -> str | None`: it asks, and says what is wrong.
"""

import ast
import asyncio
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rezero_ray.chat import ChatTokenizer, MessageRefused, policy_messages, unencodable
from rezero_ray.config import Config, Problem
from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.problems import shown
from rezero_ray.environments_index import (
    BUILT_IN,
    install_hint,
    load_environment,
    loader_of,
    module_of,
    source_of,
)
from rezero_ray.event_loop import run_to_end
from rezero_ray.foreign.loading import time_limits
from rezero_ray.foreign.rezero_child.adaptation import adapt, held_out_dataset, turns_of
from rezero_ray.foreign.rezero_child.contained import ModuleExited
from rezero_ray.foreign.rezero_child.examples import longest_prompts
from rezero_ray.preflight.environment_scoring import Effort
from rezero_ray.preflight.findings import Findings, together
from rezero_ray.preflight.foreign_environments import (
    Seen,
    interpreter_of,
    lives_elsewhere,
    look_into,
    not_reached,
)
from rezero_ray.preflight.model_facts import ModelFacts
from rezero_ray.preflight.module_code import module_code
from rezero_ray.preflight.tools import examine_tools

BYTES_TOKENISED = 512 * 1024
"""Of prompts, those that are likely to be the longest in tokens first: half a second. A data set that has no more is
measured whole."""


def examine_sources(config: Config, *, must_be_here: bool) -> Findings:
    """Importable, with a loader that takes the given args. `must_be_here` is False for a dry run,
    where a hub environment that is not installed gets a note: the run may be for another machine."""
    found = Findings()
    for index, env in enumerate(config.orchestrator.env):
        if lives_elsewhere(env):
            if not must_be_here and not interpreter_of(env).ready:
                found.notes.append(
                    f"environment {env.name}: its interpreter is made when the run is prepared"
                )
            continue
        source = source_of(env.id)
        if source is not None:
            found += together([Findings([*_signature(index, env.id, env.args, source)])])
        elif "/" in env.id and not must_be_here:
            found.notes.append(f"environment {env.name} is not installed here: {install_hint(env.id)}")
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
    """Reads `def load_environment(...)`, or the function that the id names; a class, and what the module gets by an
    import, are left to examine_prompts."""
    loader = loader_of(env_id)
    try:
        text = Path(source).read_text("utf-8") if source else ""
        body = ast.parse(text).body
    except (OSError, ValueError, SyntaxError):
        return
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == loader]
    if not functions:
        if text and loader not in text and "import *" not in text:
            what = f"module {module_of(env_id)} has no {loader}: it is no verifiers environment"
            remedy = f"the built-in ones are {', '.join(BUILT_IN)}"
            yield Problem(f"orchestrator.env.{index}.id", what, remedy, shown(env_id))
        return
    signature = functions[-1].args
    takes = [argument.arg for argument in (*signature.args, *signature.kwonlyargs)]
    for name in () if signature.kwarg else [name for name in args if name not in takes]:
        close = difflib.get_close_matches(name, takes, n=1)
        remedy = f"write {close[0]}" if close else f"it takes {', '.join(takes) or 'none'}"
        what = f"{loader} of {env_id} has no argument {name}"
        yield Problem(f"orchestrator.env.{index}.args.{name}", what, remedy, shown(args[name]))


@dataclass(frozen=True)
class Looks:
    """What was seen of each environment, by its index. `tokenizer` is the model's, None where it is not here;
    `positions` is the longest sequence that the model knows, None where that is not known."""

    seen: Mapping[int, Seen | Problem]
    tokenizer: Any
    found: Findings
    positions: int | None = None


def examine_prompts(
    config: Config, facts: ModelFacts | None, *, effort: Effort | None = None, leave: Collection[int] = ()
) -> Findings:
    """Builds each environment and measures its longest prompts with the model's tokenizer and template.

    Args:
        effort: also tries them with answers, as much as this says.
        leave: indices of environments that are known to be wrong.
    """
    return examine_looks(config, look_at(config, facts, effort=effort, leave=leave))


def examine_looks(config: Config, looks: Looks) -> Findings:
    """What is wrong with environments that were looked at."""
    found = Findings()
    for index, seen in looks.seen.items():
        found += judge(config, index, seen, looks.tokenizer, looks.positions)
        if isinstance(seen, Seen) and seen.report is not None:
            found.notes.append(seen.report.summary())
    return found + looks.found + _evaluated(config, [s for s in looks.seen.values() if isinstance(s, Seen)])


def _evaluated(config: Config, seen: Sequence[Seen]) -> Findings:
    """Where the run is to be evaluated, at least one environment needs held-out tasks."""
    if config.orchestrator.eval is None or not seen or any(each.held_out for each in seen):
        return Findings()
    what = "no environment of this run has held-out tasks"
    remedy = "leave [orchestrator.eval] out, or add an environment that has some"
    return Findings([Problem("orchestrator.eval", what, remedy)])


def look_at(
    config: Config, facts: ModelFacts | None, *, effort: Effort | None, leave: Collection[int] = ()
) -> Looks:
    """Environments in processes of their own all at a time, where they are to be tried or have an interpreter of
    their own; the others in this process, one after the other."""
    environments = {index: env for index, env in enumerate(config.orchestrator.env) if index not in leave}
    away = {i: env for i, env in environments.items() if effort is not None or lives_elsewhere(env)}
    here = {i: _built_here(i, env) for i, env in environments.items() if i not in away}
    seconds = config.limits.engine_start

    async def ask() -> Any:
        return await asyncio.gather(
            asyncio.to_thread(_read_tokenizer, config, facts),
            *(
                look_into(index, env, seconds=seconds, most_bytes=BYTES_TOKENISED, effort=effort)
                for index, env in away.items()
            ),
        )

    (tokenizer, found), *told = run_to_end(ask())
    seen = {**here, **dict(zip(away, told, strict=True))}
    positions = facts.number("max_position_embeddings") if facts is not None else None
    return Looks(dict(sorted(seen.items())), tokenizer, found, positions)


def judge(
    config: Config, index: int, seen: Seen | Problem, tokenizer: Any, positions: int | None = None
) -> Findings:
    """What is wrong with an environment, and with the length of its prompts where there is a tokenizer."""
    if isinstance(seen, Problem):
        return Findings([seen])
    found = Findings(notes=[*seen.notes]) + examine_tools(config, index, seen.tools, tokenizer)
    if config.orchestrator.eval is not None and not seen.held_out:
        found.notes.append(
            f"{config.orchestrator.env[index].name} has no held-out tasks: it is not evaluated"
        )
    if not seen.prompts:
        what = f"{config.orchestrator.env[index].name} has no prompts"
        found.problems.append(Problem(f"orchestrator.env.{index}", what, "check its args"))
    elif (refused := _not_shown(config, index, seen.prompts)) is not None:
        found.problems.append(refused)
    elif tokenizer is not None:
        found += _measured(config, index, tokenizer, seen, positions)
    if seen.report is not None:
        found += Findings(seen.report.problems(index), seen.report.notes())
    return found


def _read_tokenizer(config: Config, facts: ModelFacts | None) -> tuple[Any, Findings]:
    try:
        tokenizer = _tokenizer(facts)
    except Exception as error:  # the tokenizers library raises Exception itself
        what = f"its tokenizer cannot be read: {error}"
        return None, Findings([Problem("model.name", what, "fetch it again", shown(config.model.name))])
    notes = [] if tokenizer else ["without the model's tokenizer the length of the prompts is not checked"]
    return tokenizer, Findings(notes=notes)


def _built_here(index: int, env: EnvConfig) -> Seen | Problem:
    try:
        with module_code(f"loading {module_of(env.id)}") as printed:
            try:
                environment = load_environment(env.id, env.args)
                tools, notes = _adapted(environment, env)
                every = list(environment.get_dataset()["prompt"])
                prompts = longest_prompts(every, BYTES_TOKENISED)
                held_out = len(held_out_dataset(environment))
                trouble = environment.unreachable() if hasattr(environment, "unreachable") else None
            finally:
                said = printed.last_line()
    except Exception as error:  # an environment is foreign code: whatever it raises is told, not thrown
        why = str(error) if isinstance(error, ModuleExited) else f"{type(error).__name__}: {error}"
        said = f' (it printed last: "{said}")' if said else ""
        return _not_built(index, env.args, f"{env.name} cannot be built: {why}{said}")
    if trouble:
        return not_reached(index, trouble)
    return Seen(prompts, turns_of(environment), len(every), held_out, tools, notes)


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
    return list(changed.tools), [f"environment {env.name}: {note}" for note in changed.notes]


def _not_built(index: int, args: Mapping[str, Any], what: str) -> Problem:
    if args:
        return Problem(f"orchestrator.env.{index}.args", what, "change or drop the args", shown(dict(args)))
    return Problem(f"orchestrator.env.{index}.id", what, "call its loader by itself to see more")


def longest_in_tokens(
    tokenizer: Any, prompts: Sequence[Any], tools: Sequence[Any] = (), *, thinking: bool = True
) -> int:
    """Of the prompts as a run builds them.

    Raises:
        ValueError: the policy cannot be shown a prompt, or the chat template refuses it, in its own words.
    """
    options = {} if thinking else {"thinking": False}
    try:
        return max(_tokens(tokenizer, prompt, tools, **options) for prompt in prompts)
    except Exception as error:  # of jinja2, or whatever the template's own functions raise
        raise ValueError(str(error)) from None


def _not_shown(config: Config, index: int, prompts: Sequence[Any]) -> Problem | None:
    """A prompt that the policy cannot be shown."""
    for prompt in prompts:
        try:
            policy_messages(prompt)
        except MessageRefused as problem:
            what = f"the policy cannot be shown a prompt of {config.orchestrator.env[index].name}: {problem}"
            remedy = "give it prompts of text: change its args, or take another environment"
            return Problem(f"orchestrator.env.{index}", what, remedy)
    return None


def _measured(
    config: Config, index: int, tokenizer: Any, seen: Seen, positions: int | None = None
) -> Findings:
    thinking, env_id = config.orchestrator.sampling.thinking, config.orchestrator.env[index].name
    try:
        longest = longest_in_tokens(tokenizer, seen.prompts, seen.tools, thinking=thinking)
    except ValueError as problem:
        what = f"its chat template refuses a prompt of {env_id}: {problem}"
        remedy = "take a model whose template takes these roles, or another environment"
        return Findings([Problem("model.name", what, remedy, shown(config.model.name))])
    found = _fits(config, index, longest, seen.turns, positions)
    if replaced := sum(unencodable(prompt) for prompt in seen.prompts):
        found.notes.append(
            f"{env_id}: {replaced} prompts hold NUL or halves of surrogate pairs; the policy sees U+FFFD instead"
        )
    if seen.turns != 1 and (why := _not_continued(tokenizer, tools=bool(seen.tools))) is not None:
        what = f"{env_id} has several turns, and its chat template cannot be continued behind a reply: {why}"
        remedy = "take a model whose template takes these roles, or another environment"
        found.problems.append(Problem("model.name", what, remedy, shown(config.model.name)))
    others = seen.size - len(seen.prompts)
    if (
        others > 0
        and not found.problems
        and _fits(config, index, round(longest * 1.25), seen.turns, positions).problems
    ):
        found.notes.append(
            f"{env_id}: {len(seen.prompts)} prompts that are likely to be the longest were measured, and {others} "
            "others may leave less room for an answer"
        )
    return found


def _fits(config: Config, index: int, longest: int, turns: int, positions: int | None = None) -> Findings:
    name, max_tokens = config.orchestrator.env[index].name, config.orchestrator.sampling.max_tokens
    limits = {
        "seq_len": config.seq_len,
        "inference.model.max_model_len": config.inference.model.max_model_len or config.seq_len,
    }
    found = Findings()
    key, limit = min(limits.items(), key=lambda item: item[1])
    if longest + max_tokens > limit:
        what = f"the longest prompt of {name} has {longest} tokens; with max_tokens = {max_tokens} it needs "
        what += f"{longest + max_tokens}"
        others = ("seq_len", "orchestrator.sampling.max_tokens")
        remedy = f"write at least {longest + max_tokens}, or lower orchestrator.sampling.max_tokens"
        if positions is not None and longest + max_tokens > positions:  # no seq_len would do
            remedy = f"the model knows {positions} positions: "
            room = positions - longest
            remedy += (
                f"lower orchestrator.sampling.max_tokens to {room}" if room > 0 else "leave such prompts out"
            )
        found.problems.append(Problem(key, what, remedy, shown(limit), others=others))
    elif turns > 1 and longest + turns * max_tokens > limit:
        found.notes.append(
            f"{name}: a rollout of {turns} turns may reach {longest + turns * max_tokens} tokens and more "
            f"({key} = {limit}): those that do end early"
        )
    return found


def _tokenizer(facts: ModelFacts | None) -> Any:
    """The model's own; read from tokenizer.json, because AutoTokenizer imports torch (8 s)."""
    if facts is None or facts.folder is None or not (facts.folder / "tokenizer.json").exists():
        return None
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(facts.folder))


def _tokens(tokenizer: Any, prompt: Any, tools: Sequence[Any] = (), thinking: bool = True) -> int:
    return len(_chat(tokenizer).prompt_ids(prompt, tools, thinking=thinking))


def _not_continued(tokenizer: Any, *, tools: bool) -> str | None:
    """Why a reply cannot be answered by a user, or by a tool that it called; None where it can."""
    call = {"id": "call00000", "name": "probe", "arguments": "{}"}
    answer = {"role": "tool", "tool_call_id": call["id"]} if tools else {"role": "user"}
    chat = _chat(tokenizer)
    try:
        prompt, written = chat.prompt_ids("-"), sorted(chat.eos_ids)[:1]
        chat.next_prompt_ids(prompt, written, [{**answer, "content": "?"}], [call] if tools else [])
    except Exception as error:  # of jinja2, or whatever the template's own functions raise
        return str(error)
    return None


@lru_cache(maxsize=1)
def _chat(tokenizer: Any) -> ChatTokenizer:
    return ChatTokenizer(tokenizer)
