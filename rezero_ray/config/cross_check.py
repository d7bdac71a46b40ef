"""Values that are right by themselves and wrong together. Pure: only the config is looked at.

A key that the chosen device does not use (`inference.gpu_memory_utilization` on a CPU) is no error here:
recipes set it and an overlay cannot take it back. A key that no device would use as it stands is one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, count

from rezero_ray.config.environment import EnvConfig
from rezero_ray.config.home import unexpanded
from rezero_ray.config.problems import Problem, shown
from rezero_ray.config.schema import MAX_SEED, Config

MAX_SHARED_GPU_UTILIZATION = 0.6  # what an engine may take of a GPU on which a learner rank lives too

_ENVIRONMENT_ID = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z][\w-]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,98}[A-Za-z0-9])?", re.ASCII)
_MODULE_NAME = re.compile(r"\w+")


def cross_check(config: Config) -> list[Problem]:
    """Everything in the config that contradicts itself or that this version does not offer."""
    return [problem for check in _CHECKS for problem in check(config)]


def _not_offered_yet(config: Config) -> Iterator[Problem]:
    if config.weight_sync.mode == "merged":
        yield Problem(
            "weight_sync.mode",
            "publishing merged weights is not available in this version",
            'write "adapter", and train only modules whose adapter vLLM applies',
            '"merged"',
        )


def _home(config: Config) -> Iterator[Problem]:
    elsewhere = config.infra.elsewhere()
    for key, path in unexpanded(config):
        who = path.partition("/")[0].rpartition("~")[2]
        what = f"this machine knows no home directory of {who or 'this user'}"
        if elsewhere:
            what = "the run takes place on another machine, whose home directory is not known here"
        yield Problem(
            key, what, "write the path without ~", shown(path), others=("infra.kind",) if elsewhere else ()
        )


def _seed(config: Config) -> Iterator[Problem]:
    replicas = config.inference.parallel.dp
    if config.seed + replicas - 1 > MAX_SEED:
        yield Problem(
            "seed",
            f"replica r of the engine is seeded with seed + r, and dp = {replicas}: beyond 32 bits",
            f"write {MAX_SEED + 1 - replicas} or less",
            shown(config.seed),
            others=("inference.parallel.dp",),
        )


def _gpus(config: Config) -> Iterator[Problem]:
    for key in ("inference_gpu_ids", "trainer_gpu_ids"):
        ids: list[int] = getattr(config, key)
        twice = sorted({gpu for gpu in ids if ids.count(gpu) > 1})
        if twice:
            yield Problem(key, f"names {_gpu_list(twice)} twice", "name each GPU once", shown(ids))
    shared = sorted(set(config.inference_gpu_ids) & set(config.trainer_gpu_ids))
    utilization = config.inference.gpu_memory_utilization
    if shared and config.device != "cpu" and utilization > MAX_SHARED_GPU_UTILIZATION:
        yield Problem(
            "inference.gpu_memory_utilization",
            f"{_gpu_list(shared)} stands in inference_gpu_ids and in trainer_gpu_ids: "
            "the engine would leave the learner no room",
            f"give each its own GPU, or share with at most {MAX_SHARED_GPU_UTILIZATION} "
            "(configs/overlays/local-1gpu.toml)",
            shown(utilization),
            others=("inference_gpu_ids", "trainer_gpu_ids"),
        )


def _parallel(config: Config) -> Iterator[Problem]:
    parallel, gpus = config.inference.parallel, len(config.inference_gpu_ids)
    if parallel.dp * parallel.tp != gpus:
        replicas = gpus // parallel.tp
        fits = parallel.tp * replicas == gpus and replicas > 0
        yield Problem(
            "inference.parallel.dp",
            f"dp * tp = {parallel.dp * parallel.tp}, but inference_gpu_ids names {gpus}",
            f"write {replicas}" if fits else "make dp * tp their number",
            shown(parallel.dp),
            others=("inference.parallel.tp", "inference_gpu_ids"),
        )
    if parallel.tp > 1 and config.device == "cpu":
        yield Problem(
            "inference.parallel.tp",
            "an engine on the CPU is not split",
            "write 1, and use dp for replicas",
            shown(parallel.tp),
            others=("device",),
        )


def _lengths(config: Config) -> Iterator[Problem]:
    longest, max_tokens = config.inference.model.max_model_len, config.orchestrator.sampling.max_tokens
    if longest is not None and longest > config.seq_len:
        yield Problem(
            "inference.model.max_model_len",
            f"the engine would write sequences longer than can be trained on (seq_len = {config.seq_len})",
            f"write at most {config.seq_len}, or raise seq_len",
            shown(longest),
            others=("seq_len",),
        )
    limits = {"seq_len": config.seq_len, "inference.model.max_model_len": longest}
    for key, limit in limits.items():
        if limit is not None and max_tokens >= limit:
            yield Problem(
                "orchestrator.sampling.max_tokens",
                f"leaves no room for a prompt: prompt + completion must fit into {key} = {limit}",
                f"write less than {limit}, or raise {key}",
                shown(max_tokens),
                others=(key,),
            )
    micro_batch = config.trainer.micro_batch_tokens
    if micro_batch is not None and micro_batch < config.seq_len:
        yield Problem(
            "trainer.micro_batch_tokens",
            f"a sequence of seq_len = {config.seq_len} tokens would not fit",
            f"write at least {config.seq_len}, or lower seq_len",
            shown(micro_batch),
            others=("seq_len",),
        )


def _engine(config: Config) -> Iterator[Problem]:
    model = config.inference.model
    if model.enable_auto_tool_choice and model.tool_call_parser is None:
        yield Problem(
            "inference.model.enable_auto_tool_choice",
            "needs to know how the model writes tool calls",
            'add tool_call_parser = "hermes" (or the parser of your model)',
            "true",
            others=("inference.model.tool_call_parser",),
        )
    if model.tool_call_parser is not None and not model.enable_auto_tool_choice:
        yield Problem(
            "inference.model.tool_call_parser",
            "has no effect without enable_auto_tool_choice",
            "add enable_auto_tool_choice = true, or drop it",
            shown(model.tool_call_parser),
            others=("inference.model.enable_auto_tool_choice",),
        )
    if model.max_num_batched_tokens is not None and model.max_num_batched_tokens < model.max_num_seqs:
        yield Problem(
            "inference.model.max_num_batched_tokens",
            f"is below max_num_seqs = {model.max_num_seqs}; every running sequence needs a token a step",
            f"write at least {model.max_num_seqs}, or lower max_num_seqs",
            shown(model.max_num_batched_tokens),
            others=("inference.model.max_num_seqs",),
        )


def _groups(config: Config) -> Iterator[Problem]:
    orchestrator = config.orchestrator
    size, normalize = orchestrator.rollouts_per_example, orchestrator.advantage.normalize
    if size == 1 and normalize != "none":
        yield Problem(
            "orchestrator.rollouts_per_example",
            f'a group of one with advantage.normalize = "{normalize}": every advantage would be zero',
            'write 2 or more, or advantage.normalize = "none"',
            "1",
            others=("orchestrator.advantage.normalize",),
        )
    ranks, rollouts = len(config.trainer_gpu_ids), orchestrator.batch_size * size
    if ranks > rollouts:
        yield Problem(
            "trainer_gpu_ids",
            f"{ranks} learner ranks, but a step has only {rollouts} rollouts "
            "(batch_size * rollouts_per_example): some would train on nothing",
            f"name at most {rollouts} GPUs, or raise orchestrator.batch_size",
            shown(config.trainer_gpu_ids),
            others=("orchestrator.batch_size", "orchestrator.rollouts_per_example"),
        )


def _asynchrony(config: Config) -> Iterator[Problem]:
    orchestrator = config.orchestrator
    if orchestrator.max_async_level == 0 and orchestrator.stale != "finish":
        yield Problem(
            "orchestrator.stale",
            "has no effect with max_async_level = 0: no group ever becomes old",
            'write "finish", or raise max_async_level',
            shown(orchestrator.stale),
            others=("orchestrator.max_async_level",),
        )
    if orchestrator.filter_zero_advantage and orchestrator.resample_budget == 0:
        yield Problem(
            "orchestrator.resample_budget",
            "filter_zero_advantage may replace no group at all",
            "write 1.0, or drop filter_zero_advantage",
            "0",
            others=("orchestrator.filter_zero_advantage",),
        )


def _schedule(config: Config) -> Iterator[Problem]:
    optim = config.trainer.optim
    if optim.warmup_steps >= config.max_steps:
        yield Problem(
            "trainer.optim.warmup_steps",
            f"the run of max_steps = {config.max_steps} would end before lr is reached",
            f"write at most {config.max_steps - 1}, or raise max_steps",
            shown(optim.warmup_steps),
            others=("max_steps",),
        )
    if optim.schedule == "constant" and optim.min_lr_ratio > 0:
        yield Problem(
            "trainer.optim.min_lr_ratio",
            'has no effect with schedule = "constant"',
            'write schedule = "linear" or "cosine", or drop it',
            shown(optim.min_lr_ratio),
            others=("trainer.optim.schedule",),
        )


def _target_modules(config: Config) -> Iterator[Problem]:
    key, modules = "trainer.model.lora.target_modules", config.trainer.model.lora.target_modules
    for name in modules:
        if not _MODULE_NAME.fullmatch(name):
            last = name.rpartition(".")[2]
            remedy = f'write "{last}"' if _MODULE_NAME.fullmatch(last) else "write names such as q_proj"
            yield Problem(
                key, f"{shown(name)} is not the last part of a module's name", remedy, shown(modules)
            )
    twice = sorted({name for name in modules if modules.count(name) > 1})
    if twice:
        yield Problem(key, f"names {', '.join(twice)} twice", "name each module once", shown(modules))


def _environments(config: Config) -> Iterator[Problem]:
    environments = list(enumerate(config.orchestrator.env))
    for index, env in environments:
        if env.reward_range[0] >= env.reward_range[1]:
            yield Problem(
                f"orchestrator.env.{index}.reward_range",
                "the lowest reward comes first, and the two differ",
                "write [-1.0, 1.0], or what the environment's page says",
                shown(list(env.reward_range)),
            )
        if env.raw_reward_range is not None and env.raw_reward_range[0] >= env.raw_reward_range[1]:
            yield Problem(
                f"orchestrator.env.{index}.raw_reward_range",
                "the lowest reward comes first, and the two differ",
                "write what the environment's rewards lie between",
                shown(list(env.raw_reward_range)),
            )
        for name in ("timeout", "rollout_timeout", "tool_timeout", "score_timeout"):
            seconds = getattr(env, name)
            if seconds is not None and seconds > config.limits.group:
                yield Problem(
                    f"orchestrator.env.{index}.{name}",
                    f"limits.group = {config.limits.group} ends a group before",
                    "raise limits.group, or lower the timeout",
                    shown(seconds),
                    others=("limits.group",),
                )
        if any(not line.strip() for line in env.requirements):
            yield Problem(
                f"orchestrator.env.{index}.requirements",
                "one of them is empty",
                'write lines such as "verifiers==0.1.10"',
                shown(env.requirements),
            )
        if not _ENVIRONMENT_ID.fullmatch(env.id):
            hint = f'write "{env.id.partition("@")[0]}"; the version is chosen when it is installed'
            remedy = hint if "@" in env.id else 'write a name: "redteam-attack", "owner/name", "module:Class"'
            yield Problem(f"orchestrator.env.{index}.id", "is not an environment id", remedy, shown(env.id))
        if not _ENVIRONMENT_NAME.fullmatch(env.name) and env.name != env.id:
            yield Problem(
                f"orchestrator.env.{index}.name",
                "is not a name for metrics and records",
                "write at most 100 letters, digits, and - _ . between them",
                shown(env.name),
            )
    for (_, first), (index, second) in combinations(environments, 2):
        if _same_environment(first, second):
            yield Problem(
                f"orchestrator.env.{index}.id",
                "is listed twice with the same args",
                "list it once; `weight` sets its share of the prompts",
                shown(second.id),
            )
        elif first.name == second.name:
            taken = [env.name for _, env in environments]
            free = next(f"{second.name}-{n}" for n in count(2) if f"{second.name}-{n}" not in taken)
            yield Problem(
                f"orchestrator.env.{index}.name",
                "another environment of this run has that name",
                f'write another, such as "{free}"',
                shown(second.name),
            )


def _same_environment(first: EnvConfig, second: EnvConfig) -> bool:
    """Whether two entries pose the same tasks in the same way: only name and share of the prompts differ."""
    apart = {"name", "weight"}
    return first.model_dump(exclude=apart) == second.model_dump(exclude=apart)


def _tracking(config: Config) -> Iterator[Problem]:
    if config.wandb is None:
        return
    pairs = [
        ("experiment", config.mlflow.experiment, "project", config.wandb.project),
        ("run_name", config.mlflow.run_name, "name", config.wandb.name),
    ]
    for ours, mlflow_name, theirs, wandb_name in pairs:
        if mlflow_name is not None and wandb_name is not None and mlflow_name != wandb_name:
            yield Problem(
                f"mlflow.{ours}",
                f"wandb.{theirs} = {shown(wandb_name)} names the same thing otherwise",
                "keep one of the two",
                shown(mlflow_name),
                others=(f"wandb.{theirs}",),
            )


def _infra(config: Config) -> Iterator[Problem]:
    yield from config.infra.problems(config)


def _budget(config: Config) -> Iterator[Problem]:
    if config.budget.max_usd is not None and not config.infra.priced():
        yield Problem(
            "budget.max_usd",
            f'what an hour costs with infra.kind = "{config.infra.kind}" is not known',
            "write infra.usd_per_hour, or budget.max_hours instead",
            shown(config.budget.max_usd),
            others=("infra.kind",),
        )


def _gpu_list(gpus: Sequence[int]) -> str:
    return ("GPU " if len(gpus) == 1 else "GPUs ") + ", ".join(map(str, gpus))


_CHECKS: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    _not_offered_yet,
    _home,
    _seed,
    _gpus,
    _parallel,
    _lengths,
    _engine,
    _groups,
    _asynchrony,
    _schedule,
    _target_modules,
    _environments,
    _tracking,
    _infra,
    _budget,
)
