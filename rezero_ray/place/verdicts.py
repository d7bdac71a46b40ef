"""What was measured beside what is needed: a finding for each line of the doctor's table. Pure."""

from rezero_ray.place.needs import SAVE_SECONDS, Needs, Want
from rezero_ray.place.records import Finding, FolderFigures, MachineFigures, Verdict

GIB_IN_GB = 1024**3 / 1e9

TIGHT = 1.2
"""Less than this much of what is needed is called low, where the need is no estimate."""

RAY_OPEN_FILES = 4096  # below it Ray's own processes run out of sockets
RAY_FULL_DISK = 0.05  # Ray calls a disk full, and stops spilling, when less than this share is free
RAY_TMP_GIB = 2.0  # logs of a long run
CLOCK_SECONDS = 30.0
SLOW_SHM_GB_S = 0.2
SLOW_FLUSH_MS = 500.0
OLDEST_DRIVER = 580
"""What the pinned torch (CUDA 13) needs."""

OTHERS_GPU_GIB = 1.0  # a driver and a desktop take less


def judge_machine(figures: MachineFigures, needs: Needs) -> list[Finding]:
    """Every line of one machine, in the order of the table."""
    found = [_cpus(figures), _memory(figures, needs), _shared_memory(figures, needs)]
    if figures.disk is not None:
        found.append(_disk(figures.disk, needs))
    found += [_tmp(figures.tmp), _open_files(figures), _clock(figures)]
    if figures.gpus or figures.gpus_error or needs.gpu_count:
        found.append(_gpus(figures, needs))
    found += _memory_of_gpus(figures, needs)
    if figures.gpus:
        found.append(_driver(figures))
    if figures.peers is not None:
        found.append(_peers(figures.peers))
    return found


def enough(has: float, want: Want) -> Verdict:
    """A want with a floor is an estimate above it: `bad` is less than the floor, `low` less than the estimate."""
    if want.floor:
        return "bad" if has < want.floor else "low" if has < want.gib else "ok"
    return "bad" if has < want.gib else "low" if has < TIGHT * want.gib else "ok"


def _finding(what: str, value: str, needed: str = "", verdict: Verdict = "ok", remedy: str = "") -> Finding:
    return Finding(what, value, needed, verdict, "" if verdict == "ok" else remedy)


def _cpus(figures: MachineFigures) -> Finding:
    quota = figures.cpu_quota
    value = f"{figures.cpus}" + ("" if quota is None else f", {quota:g} cores' time granted")
    short = quota is not None and quota < figures.cpus - 0.5
    remedy = f"tell Ray: --infra.num_cpus {max(1, int(quota or 1))}; or grant the container more"
    return _finding("CPUs", value, "", "low" if short else "ok", remedy)


def _memory(figures: MachineFigures, needs: Needs) -> Finding:
    memory = figures.memory
    free, said = memory.free_gib, f"{memory.available_gib:.1f} of {memory.host_gib:.1f} GiB available"
    if memory.limit_gib is not None and memory.limit_gib < memory.host_gib:
        said = f"{free:.1f} GiB free of the container's {memory.limit_gib:.1f} (host: {memory.host_gib:.1f})"
    elif needs.paid_gib is not None and memory.host_gib > TIGHT * needs.paid_gib:
        free = min(free, needs.paid_gib)
        said = f"{needs.paid_gib:.0f} GiB asked for; /proc/meminfo shows the host's {memory.host_gib:.0f}"
    remedy = "end what else runs here, take fewer ranks or engines, smaller micro-batches or a smaller model"
    if needs.paid_gib is not None:
        remedy = "raise infra.memory_gib"
    return _finding("memory", said, _needed(needs.memory), enough(free, needs.memory), remedy)


def _shared_memory(figures: MachineFigures, needs: Needs) -> Finding:
    shm = figures.shm
    if shm.error:
        remedy = "mount a tmpfs of 1 GiB or more at /dev/shm; Ray, vLLM and NCCL cannot do without"
        return _finding("shared memory", f"/dev/shm: {shm.error}", _needed(needs.shm), "bad", remedy)
    verdict = enough(shm.free_gib, needs.shm)
    remedy = "enlarge it: docker run --shm-size=8g, or mount -o remount,size=8G /dev/shm; or lower "
    remedy += "infra.object_store_gib. NCCL_SHM_DISABLE=1 keeps NCCL out of it"
    if verdict == "ok" and shm.write_gb_s is not None and shm.write_gb_s < SLOW_SHM_GB_S:
        verdict, remedy = "low", "is it memory, or a disk? `df /dev/shm` must say tmpfs"
    value = f"{shm.free_gib:.1f} of {shm.total_gib:.1f} GiB free{_speed(shm)}"
    return _finding("shared memory", value, _needed(needs.shm), verdict, remedy)


def _disk(disk: FolderFigures, needs: Needs) -> Finding:
    if disk.error:
        remedy = "name an output_dir you may write to, with room in it"
        return _finding("disk", f"{disk.path}: {disk.error}", "", "bad", remedy)
    value = f"{disk.path}: {disk.free_gib:.0f} GiB free{_speed(disk)}"
    if disk.flush_ms is not None:
        value += f", a flush {disk.flush_ms:.1f} ms"
    seconds = needs.checkpoint_gib * GIB_IN_GB / disk.write_gb_s if disk.write_gb_s else 0.0
    needed = f"{needs.disk.gib:.1f} GiB ({needs.disk.why}); {_save(needs, seconds)}" if needs.disk.gib else ""
    if disk.free_gib < needs.disk.gib:
        remedy = "make room, name an output_dir elsewhere, or lower ckpt.keep_last"
        return _finding("disk", value, needed, "bad", remedy)
    if seconds > SAVE_SECONDS:
        remedy = "name an output_dir on a local disk; a larger ckpt.interval saves less often"
        return _finding("disk", value, needed, "low", remedy)
    slow = disk.flush_ms is not None and disk.flush_ms > SLOW_FLUSH_MS
    remedy = "every step flushes a line of metrics.jsonl: name an output_dir on a local disk"
    return _finding("disk", value, needed, "low" if slow else "ok", remedy)


def _save(needs: Needs, seconds: float) -> str:
    return f"a checkpoint of {needs.checkpoint_gib * 1024:.0f} MiB takes {seconds:.1f} s"


def _tmp(tmp: FolderFigures) -> Finding:
    share = tmp.free_gib / tmp.total_gib if tmp.total_gib else 0.0
    value = f"{tmp.path}: {tmp.free_gib:.0f} of {tmp.total_gib:.0f} GiB free"
    needed = f"{RAY_TMP_GIB:.0f} GiB of logs, {RAY_FULL_DISK:.0%} free"
    short = tmp.free_gib < RAY_TMP_GIB or share < RAY_FULL_DISK
    remedy = "make room, or set RAY_TMPDIR to a local disk (never a network Volume: sockets lie in it)"
    return _finding("Ray's folder", value, needed, "low" if short else "ok", remedy)


def _open_files(figures: MachineFigures) -> Finding:
    limit = figures.open_files
    value = "no limit" if limit < 0 else f"{limit:,}"
    short = 0 <= limit < RAY_OPEN_FILES
    remedy = "raise the hard limit: ulimit -Hn 65536, LimitNOFILE= of the service, docker run --ulimit"
    return _finding("open files", value, f"{RAY_OPEN_FILES:,}", "low" if short else "ok", remedy)


def _clock(figures: MachineFigures) -> Finding:
    offset = figures.clock_offset_s
    value = f"{figures.clock} UTC" + (f", {offset:+.1f} s against the command's" if offset else "")
    if abs(offset) > CLOCK_SECONDS:
        return _finding("clock", value, "", "low", "start NTP there: tokens and certificates expire by it")
    files = figures.disk.clock_offset_s if figures.disk else 0.0
    if abs(files) > CLOCK_SECONDS:
        value += f", files of {figures.disk.path if figures.disk else ''} are {files:+.0f} s off"
        return _finding("clock", value, "", "low", "set the clock of the file server, or of this machine")
    return _finding("clock", value)


def _gpus(figures: MachineFigures, needs: Needs) -> Finding:
    names = sorted({gpu.name for gpu in figures.gpus})
    value = f"{len(figures.gpus)} ({', '.join(names)})" if figures.gpus else "none"
    highest = max(needs.gpus, default=needs.gpu_count - 1) + 1
    needed = f"{highest}" if highest else ""
    if figures.gpus_error:
        remedy = "does nvidia-smi work here? A driver that hangs takes a reboot, or another machine"
        verdict: Verdict = "bad" if needs.gpu_count else "low"
        return _finding("GPUs", f"{value}; {figures.gpus_error}", needed, verdict, remedy)
    short = len(figures.gpus) < highest
    remedy = "name GPUs that are there in inference_gpu_ids and trainer_gpu_ids "
    remedy += "(configs/overlays/local-1gpu.toml shares one), or take configs/overlays/cpu.toml"
    return _finding("GPUs", value, needed, "bad" if short else "ok", remedy)


def _memory_of_gpus(figures: MachineFigures, needs: Needs) -> list[Finding]:
    found = []
    for number, gpu in enumerate(figures.gpus):
        want = needs.gpus.get(number)
        if want is None and needs.gpus:
            continue  # the run leaves it alone
        free, engine = gpu.memory_gib - gpu.used_gib, (want.engine_share if want else 0.0) * gpu.memory_gib
        value = f"{free:.1f} of {gpu.memory_gib:.1f} GiB free"
        parts = [f"{engine:.1f} for the engine"] if engine else []
        parts += [f"{want.learner_gib:.1f} for a learner rank"] if want and want.learner_gib else []
        verdict: Verdict = "ok"
        if want and free < engine + want.learner_floor_gib:
            verdict = "bad"
        elif gpu.used_gib > OTHERS_GPU_GIB or (want and free < engine + want.learner_gib):
            verdict = "low"
        remedy = "lower inference.gpu_memory_utilization or trainer.micro_batch_tokens, or name more GPUs"
        if gpu.used_gib > OTHERS_GPU_GIB:
            remedy = f"others hold {gpu.used_gib:.1f} GiB: `nvidia-smi` names the processes, end them"
        found.append(_finding(f"GPU {number}", value, ", ".join(parts), verdict, remedy))
    return found


def _driver(figures: MachineFigures) -> Finding:
    driver = figures.gpus[0].driver
    major = driver.partition(".")[0]
    old = major.isdecimal() and int(major) < OLDEST_DRIVER
    pinned = figures.locked_memory_gib
    value = driver + ("" if pinned is None else f", {pinned:.2g} GiB may be pinned")
    if old:
        remedy = f"install r{OLDEST_DRIVER} or newer: the pinned torch is built for CUDA 13"
        return _finding("NVIDIA driver", value, f"r{OLDEST_DRIVER}", "bad", remedy)
    small = pinned is not None and pinned < 1
    remedy = "NCCL may want more over a network: ulimit -l unlimited, docker run --ulimit memlock=-1"
    return _finding("NVIDIA driver", value, f"r{OLDEST_DRIVER}", "low" if small else "ok", remedy)


def _peers(matrix: list[list[bool]]) -> Finding:
    pairs = [(i, j) for i in range(len(matrix)) for j in range(i) if not (matrix[i][j] and matrix[j][i])]
    count = len(matrix) * (len(matrix) - 1) // 2
    value = f"{count - len(pairs)} of {count} pairs"
    if pairs:
        value += "; not " + ", ".join(f"{j}-{i}" for i, j in pairs[:6]) + (" ..." if len(pairs) > 6 else "")
    remedy = "NCCL goes through host memory there: slower, and /dev/shm must have room. Where it hangs: "
    remedy += "NCCL_P2P_DISABLE=1"
    return _finding("peer access", value, "all", "low" if pairs else "ok", remedy)


def _needed(want: Want) -> str:
    return f"{want.gib:.1f} GiB ({want.why})" if want.gib else ""


def _speed(folder: FolderFigures) -> str:
    text = ""
    if folder.write_gb_s is not None:
        text += f", written at {folder.write_gb_s:.2f} GB/s"
    if folder.read_gb_s is not None:
        text += f", read at {folder.read_gb_s:.2f}"
    return text
