"""Claims about CUDA_VISIBLE_DEVICES. The oracle is torch's own reading, which follows CUDA's."""

import os
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rezero_ray.host.visible_gpus import hidden, visible_gpus

UUIDS = ["GPU-aa10", "GPU-aa22", "GPU-bb30", "GPU-cc44"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, "0 1 2 3"),
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("2,0", "2 0"),
        ("0,2", "0 2"),
        ("0,-1,1", "0"),
        ("1,1", ""),
        ("0,9,1", "0"),
        ("0,9,9", ""),
        ("1gpu2, 2ampere", "1 2"),
        ("0,,1", "0"),
        ("GPU-cc44,GPU-aa10", "3 0"),
        ("GPU-b", "2"),
        ("GPU-aa", ""),
        ("GPU-bb30,GPU-bb", ""),
        ("GPU-bb30,1", "2"),
        ("GPU-zz,GPU-bb30", ""),
    ],
)
def test_gpus_are_counted_as_cuda_counts_them(value: str | None, names: str) -> None:
    found = visible_gpus(value, UUIDS)
    assert " ".join(found.names) == names
    assert [str(ordinal) for ordinal in found.ordinals] == names.split()


entries = st.one_of(
    st.integers(-2, 6).map(str),
    st.sampled_from(
        [*UUIDS, "GPU-a", "GPU-aa", "GPU-b", "GPU-", "GPU-zz", "", " 1", "1x", "x1", "+2", "NoDevFiles"]
    ),
)


@given(st.lists(entries, min_size=1, max_size=6).map(",".join), st.integers(1, 4))
def test_any_list_is_read_as_torch_reads_it(value: str, count: int) -> None:
    import torch.cuda as cuda

    with (
        patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": value}),
        patch.object(cuda, "_raw_device_count_nvml", lambda: count),
        patch.object(cuda, "_raw_device_uuid_nvml", lambda: UUIDS[:count]),
    ):
        assert len(visible_gpus(value, UUIDS[:count]).names) == cuda._device_count_nvml()


def test_one_mig_instance_is_visible_to_a_process() -> None:
    found = visible_gpus("MIG-1,MIG-2", UUIDS)
    assert (found.names, found.ordinals) == (("MIG-1",), (None,))
    assert visible_gpus("MIG-1,MIG-1", UUIDS).names == ()
    assert visible_gpus("MIG-1", []).names == ()


def test_gpus_that_are_hidden_are_explained() -> None:
    assert hidden({}, 4, 4) is None
    assert hidden({"CUDA_VISIBLE_DEVICES": "0,1"}, 2, 2) is None
    told = hidden({"CUDA_VISIBLE_DEVICES": "2,3", "NVIDIA_VISIBLE_DEVICES": "2,3"}, 2, 0) or ""
    assert "CUDA_VISIBLE_DEVICES=2,3 leaves 0 of the 2 GPUs" in told
    assert "count from 0" in told
