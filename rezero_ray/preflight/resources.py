"""Does the machine have what the config asks for?"""

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.findings import Findings, together
from rezero_ray.preflight.machine import GIB, Device, Machine
from rezero_ray.preflight.memory import Need, adapter_bytes, engine_need, learner_need
from rezero_ray.preflight.model_facts import ModelFacts

_SHM_BESIDE_ADAPTERS_GIB = 0.1  # queues of the engine's and Ray's own processes


def examine_resources(config: Config, facts: ModelFacts | None, machine: Machine, device: Device) -> Findings:
    """What is missing for a run here and now. Memory is refused only where it is clearly impossible."""
    findings = [_gpus(config, machine, device), _object_store(config, machine)]
    if facts is not None and facts.tensors:
        findings.append(_shared_memory(config, facts, machine))
        findings.append((_gpu_memory if device == "cuda" else _host_memory)(config, facts, machine))
    return together(findings)


def _gpus(config: Config, machine: Machine, device: Device) -> Findings:
    if device == "cpu":
        return Findings()
    count = len(machine.gpu_gib)
    if count == 0:
        remedy = 'write "auto" or "cpu" (with configs/overlays/cpu.toml), or run where there is a GPU'
        what = "this machine has no GPU that can be seen (nvidia-smi, /dev/nvidia*, CUDA_VISIBLE_DEVICES)"
        what += f": {machine.gpus_hidden}" if machine.gpus_hidden else ""
        return Findings([Problem("device", what, remedy, shown(config.device))])
    findings = Findings()
    for key in ("inference_gpu_ids", "trainer_gpu_ids"):
        ids: list[int] = getattr(config, key)
        beyond = [gpu for gpu in ids if gpu >= count]
        if beyond:
            what = f"this machine has {count} GPU{'s' if count > 1 else ''}, numbered from 0"
            what += f" ({machine.gpus_hidden})" if machine.gpus_hidden else ""
            remedy = f'name ids from 0 to {count - 1}, or write device = "cpu" (configs/overlays/cpu.toml)'
            if count == 1:
                remedy = "share it: configs/overlays/local-1gpu.toml"
            findings.problems.append(Problem(key, what, remedy, shown(ids)))
    return findings


def _object_store(config: Config, machine: Machine) -> Findings:
    wanted = getattr(config.infra, "object_store_gib", None)  # only some backends start Ray
    if wanted is None or wanted <= machine.shm_gib:
        return Findings()
    what = f"/dev/shm has {machine.shm_gib:.1f} GiB free"
    remedy = "write less, drop the key, or enlarge /dev/shm (docker run --shm-size)"
    return Findings([Problem("infra.object_store_gib", what, remedy, shown(wanted))])


def _shared_memory(config: Config, facts: ModelFacts, machine: Machine) -> Findings:
    """Adapters are published through /dev/shm: two files' worth for every version alive."""
    versions = config.orchestrator.max_async_level + 2
    needed = versions * adapter_bytes(config, facts) / GIB + _SHM_BESIDE_ADAPTERS_GIB
    if needed <= machine.shm_gib:
        return Findings()
    what = f"its adapters need {needed:.2f} GiB of /dev/shm, {machine.shm_gib:.2f} are free"

    remedy = "enlarge it (docker run --shm-size=1g), or lower the rank"
    return Findings([Problem("trainer.model.lora.rank", what, remedy, shown(config.trainer.model.lora.rank))])


def _gpu_memory(config: Config, facts: ModelFacts, machine: Machine) -> Findings:
    findings = Findings()
    engine, learner = engine_need(config, facts, "cuda"), learner_need(config, facts, "cuda")
    utilization = config.inference.gpu_memory_utilization
    for gpu, has in enumerate(machine.gpu_gib):
        if has is None:
            continue
        shared = gpu in config.inference_gpu_ids
        if shared and _gib(engine) > utilization * has:
            what = (
                f"{utilization * has:.1f} of the {has:.0f} GiB of GPU {gpu} cannot hold the engine's weights"
            )
            remedy = f"they need {_gib(engine):.1f} GiB: split them over more GPUs (inference.parallel.tp)"
            key = "inference.gpu_memory_utilization"
            findings.problems.append(Problem(key, what, remedy, shown(utilization)))
        left = has * (1 - utilization) if shared else has
        if gpu in config.trainer_gpu_ids and _gib(learner) > left:
            what = f"GPU {gpu} leaves a learner rank {left:.1f} GiB, its shard needs {_gib(learner):.1f}"
            remedy = "name more trainer GPUs, or take a smaller model"
            findings.problems.append(Problem("trainer_gpu_ids", what, remedy, shown(config.trainer_gpu_ids)))
    return findings


def _host_memory(config: Config, facts: ModelFacts, machine: Machine) -> Findings:
    engines, ranks = config.inference.parallel.dp, len(config.trainer_gpu_ids)
    engine, learner = engine_need(config, facts, "cpu"), learner_need(config, facts, "cpu")
    needed = engines * _gib(engine) + ranks * _gib(learner)
    if needed <= machine.memory_gib:
        return Findings()
    what = (
        f"on the CPU {engines} x {_gib(engine):.1f} + {ranks} x {_gib(learner):.1f} GiB are needed at least; "
    )
    what += f"this machine has {machine.memory_gib:.1f}"
    remedy = "take a smaller model (configs/overlays/cpu.toml), or run where there are GPUs"
    return Findings([Problem("model.name", what, remedy, shown(config.model.name))])


def _gib(need: Need) -> float:
    return need.floor_bytes / GIB
