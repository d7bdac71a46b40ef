"""How fast this device is, measured: products, memory, sampling, a small operation. One to three seconds.

The products are those of a model's layers: matrices of its shape in its dtype, so many that no cache holds them.
A round takes milliseconds, all figures take turns, and the best round of each counts: the others had to share the
cores with whatever else was running. What is measured is the machine by itself.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from rezero_ray.forecast.place import LOGIT_BYTES, Place

ROWS = {"cpu": (1, 8, 64, 256), "cuda": (1, 8, 64, 512, 4096)}
"""Rows of the measured products: from one sequence decoded alone to a micro-batch."""

CPU_ROUND_FLOPS = 0.12e9
"""Columns of a product beyond so many operations are left out on a CPU: a round is to last a millisecond at most."""

GPU_PRODUCTS_A_ROUND = 50
"""One by itself is over before the next is launched."""

MATRIX_BYTES, MOST_MATRICES = 128 * 2**20, 96
"""Of all matrices together: more than the caches of most processors. Small models have fewer bytes, and fit."""

STREAM_BYTES, STREAM_PARTS = 256 * 2**20, 16
FEWEST_ROUNDS = 10

ENGINE = 0.75
"""vLLM's passes on the CPU, of products with as many rows: its attention and our adapter's products take the rest."""

TRAINING = 0.7
"""Forward and backward on the CPU, of products with a micro-batch's rows. One rank alone reaches 0.77 with the shapes
of SmolLM2: products of 16 columns, attention and element by element work take the rest. Ranks that share two cores
lose another tenth."""

UNKNOWN_LINK = 21e9
"""Bytes/s between ranks on a GPU whose link is not known: PCIe 4."""

FEW_CORES, SCALING = 8, 0.85
"""Up to so many cores together reach this much of what each does alone, where a product has enough rows. A thread by
itself finds a free core sooner than all do at once, so on a busy machine the larger of the two figures is nearer."""

MANY_ROWS = 64

Work = Callable[[], object]


def measure_place(
    device: str,
    dtype: str,
    *,
    hidden: int = 1024,
    inner: int = 4096,
    vocabulary: int = 49_152,
    seconds: float = 1.5,
) -> Place:
    """The speeds of this process's device, for a model of this shape.

    Args:
        device: "cpu" (all cores that this process may use) or "cuda" (its first GPU).
        dtype: "bfloat16" or "float32".
        hidden, inner: of the model's layers.
        vocabulary: logits of one sampled token.
        seconds: that all rounds together may take, or a little more.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the run's processes have it: `actors.placement`
    import torch

    cores = len(os.sched_getaffinity(0)) if device == "cpu" else None
    threads = torch.get_num_threads()
    if cores is not None:
        torch.set_num_threads(cores)
    try:
        return _measured(torch, device, dtype, (hidden, inner, vocabulary), cores, seconds)
    finally:
        torch.set_num_threads(threads)


def _measured(
    torch: Any, device: str, dtype: str, shape: tuple[int, int, int], cores: int | None, seconds: float
) -> Place:
    hidden, inner, vocabulary = shape
    kind = {"dtype": getattr(torch, dtype), "device": device}
    size = hidden * inner * torch.finfo(kind["dtype"]).bits // 8
    count = min(MOST_MATRICES, max(2, MATRIX_BYTES // size))
    matrices = itertools.cycle([torch.full((inner, hidden), 0.01, **kind) for _ in range(count)])
    products = [_product(torch, rows, matrices, shape, kind) for rows in ROWS[device]]
    parts = itertools.cycle(torch.ones(STREAM_BYTES // 4, device=device).chunk(STREAM_PARTS))
    small = torch.ones(8, hidden, **kind)
    logits, sample = _sampling(torch, vocabulary)
    works: list[Work] = [work for _, work in products]
    works += [lambda: next(parts).sum(), lambda: [small + small for _ in range(100)]]
    works += [sample] if cores is not None else []
    best = _best(works, seconds, torch.cuda.synchronize if device == "cuda" else _nothing)
    memory = STREAM_BYTES / STREAM_PARTS / best[len(products)]
    if cores is not None and cores <= FEW_CORES:
        torch.set_num_threads(1)
        *alone, sampled = _best([*(work for _, work in products), sample], seconds / 2, _nothing)
        best[-1] = min(best[-1], sampled)
        for index, rows in enumerate(ROWS[device]):
            if rows >= MANY_ROWS:
                best[index] = min(best[index], alone[index] / (SCALING * cores))
    return Place(
        name=torch.cuda.get_device_name(0) if device == "cuda" else f"{cores} CPU cores",
        origin="measured here",
        products=tuple(
            (float(rows), flops / taken)
            for rows, (flops, _), taken in zip(ROWS[device], products, best, strict=False)
        ),
        engine=ENGINE,
        training=TRAINING,
        memory=memory,
        logits=memory / LOGIT_BYTES if cores is None else logits / best[-1],
        operation=best[len(products) + 1] / 100,
        gather=UNKNOWN_LINK if cores is None else None,
        cores=cores,
    )


def _product(
    torch: Any, rows: int, matrices: Any, shape: tuple[int, int, int], kind: dict[str, Any]
) -> tuple[float, Work]:
    """Operations of a round, and the round."""
    hidden, inner, _ = shape
    cpu = kind["device"] == "cpu"
    columns = min(inner, max(64, int(CPU_ROUND_FLOPS / (2 * rows * hidden)))) if cpu else inner
    times = 1 if cpu else GPU_PRODUCTS_A_ROUND
    inputs = torch.full((rows, hidden), 0.01, **kind)

    def work() -> None:
        for _ in range(times):
            inputs @ next(matrices)[:columns].t()

    return 2.0 * rows * hidden * columns * times, work


def _sampling(torch: Any, vocabulary: int) -> tuple[int, Work]:
    """Logits of a round, and what vLLM does with them on the CPU: softmax, a draw seeded by sequence, logprobs."""
    rows = 2
    logits = torch.ones(rows, vocabulary)
    generators = [torch.Generator().manual_seed(row) for row in range(rows)]

    def work() -> Any:
        draws = torch.empty_like(logits)
        for row, generator in enumerate(generators):
            draws[row].exponential_(generator=generator)
        logprobs = logits.log_softmax(dim=-1)
        chosen = (logits.softmax(dim=-1) / draws).argmax(dim=-1)
        return (logprobs >= logprobs.gather(1, chosen[:, None])).sum(dim=-1)

    return rows * vocabulary, work


def _best(works: Sequence[Work], seconds: float, wait: Work) -> list[float]:
    """Seconds of the fastest round of each; the first, which warms up, does not count. `wait` returns when the device
    has done its work."""
    best = [float("inf")] * len(works)
    for work in works:
        work()
    rounds, began = 0, time.perf_counter()
    while rounds < FEWEST_ROUNDS or time.perf_counter() - began < seconds:
        for index, work in enumerate(works):
            wait()
            started = time.perf_counter()
            work()
            wait()
            best[index] = min(best[index], time.perf_counter() - started)
        rounds += 1
    return best


def _nothing() -> None: ...
