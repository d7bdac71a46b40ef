"""Claims about `StopRequest`, with real signals to this process."""

import signal

import pytest

from rezero_ray.interruption import StopRequest

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
