"""The arithmetic of the forecast: the H100 recipe by hand, what overlaps, and that more work never takes less."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.config import Config, load_config
from rezero_ray.forecast.lengths import Lengths, decoding, full_lengths
from rezero_ray.forecast.model_work import ModelWork, model_work
from rezero_ray.forecast.place import Place, known_place
from rezero_ray.forecast.step_time import StepTime, step_time
from rezero_ray.preflight.model_facts import find_model

ROOT = Path(__file__).parents[2]
KV_TOKENS = 290_000


def glm(*flags: str) -> Config:
    return load_config([ROOT / "configs/redteam.toml"], flags)


def work_of(config: Config) -> ModelWork:
    facts = find_model(config.model.name)
    assert facts is not None
    work = model_work(config, facts)
    assert work is not None
    return work


def place_of(name: str) -> Place:
    place = known_place(name, "bfloat16")
    assert place is not None
    return place


GLM = work_of(glm())
H100 = place_of("NVIDIA H100 80GB HBM3")
TWO_CORES = Place(
    name="2 CPU cores",
    origin="of this test",
    products=((1.0, 5e9), (64.0, 135e9)),
    engine=0.66,
    training=0.7,
    memory=30e9,
    logits=45e6,
    operation=2e-6,
    gather=None,
    cores=2,
)


def time_of(config: Config, lengths: Lengths, *, place: Place = H100, work: ModelWork = GLM) -> StepTime:
    return step_time(config, work, place, lengths, kv_tokens=KV_TOKENS)


def seconds_of(step: StepTime) -> dict[str, float]:
    return {term.what: term.seconds for part in (step.rollouts, step.training) for term in part.terms}


def test_of_glm_a_token_computes_an_eighth_of_the_parameters() -> None:
    """By the hand-made roofline: 29.94 B parameters, 3.58 B active, 7.16 GFLOP a token, 0.72 of attention at 750."""
    embedding = 154_880 * 2048
    assert GLM.dense + GLM.routed + GLM.head + embedding == pytest.approx(29.94e9, rel=0.001)
    assert GLM.flops(0) + 2 * GLM.head == pytest.approx(7.16e9, rel=0.001)
    assert GLM.flops(750) - GLM.flops(0) == pytest.approx(0.72e9, rel=0.01)


def test_few_tokens_read_few_experts_and_a_full_batch_reads_them_all() -> None:
    assert GLM.weight_bytes(1) == pytest.approx(7.16e9, rel=0.001)  # 3.58 B parameters in bfloat16
    assert GLM.weight_bytes(256) == pytest.approx(2 * (GLM.dense + GLM.routed + GLM.head), rel=1e-6)


def test_decoding_glm_on_an_h100_is_the_hand_made_figure() -> None:
    """512 rollouts of 512 tokens behind prompts of 256: two waves of 256 sequences, 1,024 iterations. Each reads
    59.25 GB of weights and the cache of 256 x 512 positions, at 0.7 of 3.35 TB/s: 28.3 ms."""
    lengths = full_lengths(glm(), prompt=256, turns=1)
    iteration = (59.25e9 + 256 * (256 + 256) * 54_144) / (0.7 * 3.35e12)
    assert iteration == pytest.approx(0.0283, rel=0.01)
    assert seconds_of(time_of(glm(), lengths))["decoding"] == pytest.approx(1024 * iteration, rel=0.001)


def test_training_glm_on_three_h100_is_the_hand_made_figure() -> None:
    """128 trees of 256 + 4 x 512 tokens over three ranks, 43 of them on the fullest; forward, recomputation and
    gradients of the inputs: 3 x 6.52 GFLOP a token and attention to 512 positions, at 0.35 of 989 TFLOP/s."""
    lengths = full_lengths(glm(), prompt=256, turns=1)
    assert lengths.computed == 43 * (256 + 4 * 512)
    operations = lengths.computed * (3 * 2 * GLM.active + 4 * 962_560 * 512)
    by_hand = operations / (0.35 * 989e12)
    assert seconds_of(time_of(glm(), lengths))["forward and backward"] == pytest.approx(by_hand, rel=0.001)
    assert by_hand == pytest.approx(6.2, rel=0.02)


def test_small_micro_batches_wait_for_their_weights() -> None:
    """40 GB a rank and pass at 300 GB/s, twice a micro-batch: hidden at 16k tokens, not at 4k over
    PCIe 4."""
    hidden = "gathers that the computing does not hide"
    whole = full_lengths(glm(), prompt=256, turns=1)
    assert seconds_of(time_of(glm(), whole))[hidden] == 0
    small = glm("--trainer.micro_batch_tokens=4096")
    lengths = full_lengths(small, prompt=256, turns=1)
    slow = seconds_of(time_of(small, lengths, place=replace(H100, gather=22e9)))
    once = 39.9e9 / 22e9
    computing = sum(
        seconds for what, seconds in slow.items() if what in ("forward and backward", "head", "adapter")
    )
    assert slow[hidden] == pytest.approx(2 * lengths.micro_batches * once - computing, rel=0.05)


def test_a_step_at_level_0_takes_the_sum_and_at_level_1_the_longer() -> None:
    lengths = full_lengths(glm(), prompt=256, turns=1)
    apart, beside = (time_of(glm(f"--orchestrator.max_async_level={level}"), lengths) for level in (0, 1))
    rest = apart.publishing.seconds + apart.checkpoint.seconds
    assert apart.seconds_per_step == pytest.approx(apart.rollouts.seconds + apart.training.seconds + rest)
    longer = max(beside.rollouts.seconds, beside.training.seconds)
    assert beside.seconds_per_step == pytest.approx(
        longer + beside.publishing.seconds + beside.checkpoint.seconds
    )


def test_nothing_overlaps_where_engine_and_learner_share_a_device() -> None:
    level = "--orchestrator.max_async_level=1"
    lengths = full_lengths(glm(), prompt=256, turns=1)
    assert not time_of(glm(level), lengths, place=TWO_CORES).overlap
    shared = ("--inference_gpu_ids=[0]", "--trainer_gpu_ids=[0]", "--inference.gpu_memory_utilization=0.4")
    one = glm(level, *shared)
    assert not time_of(one, full_lengths(one, prompt=256, turns=1)).overlap


def test_a_faster_gpu_is_faster() -> None:
    lengths = full_lengths(glm(), prompt=256, turns=1)
    places = [place_of(name) for name in ("A100-80GB", "H100", "H200", "B200")]
    seconds = [time_of(glm(), lengths, place=place).seconds_per_step for place in places]
    assert seconds == sorted(seconds, reverse=True)


@given(
    completions=st.lists(st.integers(1, 600), min_size=1, max_size=40),
    more=st.lists(st.integers(0, 200), min_size=40, max_size=40),
    prompt=st.integers(1, 400),
    slots=st.sampled_from(["4", "16", "256"]),
)
def test_more_tokens_never_take_less(
    completions: list[int], more: list[int], prompt: int, slots: str
) -> None:
    config = glm(f"--inference.model.max_num_seqs={slots}")
    longer = [tokens + extra for tokens, extra in zip(completions, more, strict=False)]

    def seconds(written: list[int]) -> float:
        tokens = prompt + sum(written)
        lengths = Lengths((prompt,), tuple(written), 0, len(written), tokens, sum(written), 1, tokens)
        return time_of(config, lengths).seconds_per_step

    assert seconds(longer) >= seconds(completions) * (1 - 1e-9)


@given(completions=st.lists(st.integers(1, 50), min_size=1, max_size=40), slots=st.integers(1, 50))
def test_every_token_is_decoded_once_in_as_many_slots_as_there_are(
    completions: list[int], slots: int
) -> None:
    pieces = list(decoding(completions, slots))
    assert sum(iterations * sequences for iterations, sequences in pieces) == sum(completions)
    assert max(sequences for _, sequences in pieces) == min(slots, len(completions))
    assert sum(iterations for iterations, _ in pieces) >= max(completions)


def test_products_lie_between_those_that_were_measured() -> None:
    assert TWO_CORES.flops(0.5) == TWO_CORES.flops(1) == 5e9
    assert TWO_CORES.flops(8) == pytest.approx(70e9)  # half of the way from 1 to 64 on a log scale
    assert TWO_CORES.flops(1000) == 135e9


@pytest.mark.parametrize(
    ("said", "entry"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("H100!", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("A100-40GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_a_gpu_is_known_by_the_names_it_goes_by(said: str, entry: str | None) -> None:
    place = known_place(said, "bfloat16")
    assert (place.name if place else None) == entry
