"""Claims about `StopRequest`, with real signals to this process."""

import signal
import threading
import time

import pytest

from rezero_ray.interruption import ClusterWatch, StopRequest

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])


@SIGNALS
def test_while_there_is_nothing_to_save_the_first_signal_leaves(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(number)


@SIGNALS
def test_once_armed_the_first_signal_asks_and_the_second_leaves(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with StopRequest() as stop:
        stop.armed = True
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert "with a checkpoint" in capsys.readouterr().out
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_the_handlers_of_before_are_put_back_even_after_an_error() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_on_another_thread_nothing_is_taken_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen: list[object] = []

    def run() -> None:
        with StopRequest() as stop:
            seen.extend([signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), stop.requested])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [*before, False]


@pytest.mark.parametrize("armed", [False, True])
@pytest.mark.parametrize("asked", [False, True], ids=["ray-alone", "sigterm-too"])
def test_the_end_of_rays_processes_ends_a_wait_that_would_last(armed: bool, asked: bool) -> None:
    """`asked`: this process got the same SIGTERM before, and had begun to save."""
    lives = True
    with StopRequest() as stop, ClusterWatch(lambda: lives, stop, look=0.01, grace=0.05):
        stop.armed, stop.requested = armed, asked
        lives = False
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)
        assert time.monotonic() - began < 10
        assert (stop.cluster_lost, stop.requested) == (True, asked)


def test_a_sigterm_that_comes_after_rays_end_says_how_the_run_ended() -> None:
    with StopRequest() as stop:
        stop.armed = stop.cluster_lost = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


def test_a_run_that_leaves_already_is_not_interrupted_again() -> None:
    lives = True
    with StopRequest() as stop, ClusterWatch(lambda: lives, stop, look=0.01, grace=0.05) as watch:
        watch.end()
        lives = False
        time.sleep(0.2)
    assert not stop.cluster_lost


def test_whether_ray_ends_is_looked_at_for_a_while() -> None:
    ends = time.monotonic() + 0.2
    watch = ClusterWatch(lambda: time.monotonic() < ends, StopRequest(), look=0.01)
    assert not watch.sees_end_within(0.05)
    assert watch.sees_end_within(10)
