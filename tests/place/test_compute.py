"""Claims about the figures of one process."""

import pytest

from rezero_ray.place.compute import measure_compute


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_and_copies_are_of_this_processor(dtype: str) -> None:
    found = measure_compute("cpu", dtype, seconds=0.02)
    assert (found.device, found.dtype) == ("cpu", dtype)
    assert 1e8 < found.flop_s < 1e14
    assert 0.1 < found.memory_gb_s < 2000
