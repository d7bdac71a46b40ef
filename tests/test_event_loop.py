"""Plain code may call coroutines wherever it runs: in a script, in a thread, in a notebook's running loop."""

import asyncio
import threading

import pytest

from rezero_ray.event_loop import run_to_end


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def failing() -> int:
    raise ValueError("broken")


def test_a_coroutine_runs_to_its_end_with_and_without_a_running_loop() -> None:
    async def cell() -> int:
        return run_to_end(answer())

    found: list[int] = [run_to_end(answer()), asyncio.run(cell())]
    thread = threading.Thread(target=lambda: found.append(run_to_end(answer())))
    thread.start()
    thread.join()
    assert found == [42, 42, 42]


def test_its_error_goes_through() -> None:
    async def cell() -> int:
        return run_to_end(failing())

    for call in (lambda: run_to_end(failing()), lambda: asyncio.run(cell())):
        with pytest.raises(ValueError, match="broken"):
            call()
