"""Claims about the lock of a run directory: one process at a time, on one host and across hosts."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import pytest

from rezero_ray.config import ConfigError
from rezero_ray.errors import RunError
from rezero_ray.holding.holder import Holder, encoded, new_holder
from rezero_ray.holding.lock import RunLock, acquire, clear_dead, wait_until_free
from rezero_ray.holding.watching import RECORD

PROCESSES = multiprocessing.get_context("fork")


def take_and_hold(directory: Path, begin: float, answer: Connection) -> None:
    time.sleep(max(0.0, begin - time.time()))
    try:
        lock = acquire(directory, limit=60.0)
    except ConfigError as error:
        answer.send(str(error))
        return
    answer.send("held")
    signal.pause()
    lock.release()


@contextmanager
def takers(directory: Path, count: int) -> Iterator[list[tuple[BaseProcess, str]]]:
    """`count` processes that try to take `directory` at one moment; what each of them answers."""
    begin, found = time.time() + 0.3, []
    for _ in range(count):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=take_and_hold, args=(directory, begin, sender))
        process.start()
        sender.close()
        found.append((process, receiver))
    try:
        yield [(process, receiver.recv()) for process, receiver in found]
    finally:
        for process, _ in found:
            process.kill()
            process.join()


def elsewhere(**changes: object) -> Holder:
    """A holder on another host."""
    mine = new_holder("f" * 16)
    place = msgspec.structs.replace(mine.place, host="gpu-17", boot_id="another")
    return msgspec.structs.replace(mine, place=place, pid=4711, **changes)


def write_record(directory: Path, holder: Holder, held: float = 600.0) -> None:
    (directory / RECORD).write_bytes(encoded(holder, held))


def quiet(line: str) -> None:
    """Where what a wait says does not matter."""


def test_of_several_processes_that_start_at_once_exactly_one_gets_the_directory(tmp_path: Path) -> None:
    with takers(tmp_path, 6) as answers:
        holders = [process.pid for process, answer in answers if answer == "held"]
        refusals = [answer for _, answer in answers if answer != "held"]
    assert len(holders) == 1
    assert len(refusals) == 5
    assert all(f"in use by process {holders[0]} on {socket.gethostname()}" in line for line in refusals)


def test_a_holder_that_was_killed_is_replaced_at_once_and_by_one_process_only(tmp_path: Path) -> None:
    with takers(tmp_path, 1) as [(holder, answer)]:
        assert answer == "held"
        holder.kill()
        holder.join()
        began = time.monotonic()
        with takers(tmp_path, 4) as answers:
            took = time.monotonic() - began
            assert sorted(answer == "held" for _, answer in answers) == [False, False, False, True]
    assert took < 30  # not the 60 s of a holder elsewhere


def test_a_killed_holder_that_nobody_has_waited_for_does_not_block(tmp_path: Path) -> None:
    """PID 1 of a container often leaves zombies."""
    with takers(tmp_path, 1) as [(holder, answer)]:
        assert answer == "held"
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays a zombie
        acquire(tmp_path, limit=60.0, say=pytest.fail).release()


def test_a_process_that_has_the_pid_of_a_dead_holder_does_not_block(tmp_path: Path) -> None:
    mine = new_holder("0" * 16)
    write_record(tmp_path, msgspec.structs.replace(mine, started=mine.started - 1))
    acquire(tmp_path, limit=60.0, say=pytest.fail).release()


def test_a_second_time_in_one_process_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    first = acquire(tmp_path)
    with pytest.raises(ConfigError, match="in use by process"):
        acquire(tmp_path)
    first.release()
    acquire(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_a_holder_on_another_host_is_refused_once_its_heartbeat_is_seen(tmp_path: Path) -> None:
    ended = threading.Event()

    def beat() -> None:
        held = 7200.0
        while not ended.wait(0.1):
            held += 0.1
            write_record(tmp_path, elsewhere(), held)

    write_record(tmp_path, elsewhere(), 7200.0)
    threading.Thread(target=beat).start()
    said: list[str] = []
    try:
        with pytest.raises(ConfigError, match="in use by process 4711 on gpu-17, for 2 hours"):
            acquire(tmp_path, limit=30.0, say=said.append)
    finally:
        ended.set()
    assert "waiting up to 30 s for a heartbeat" in said[0]


def test_a_holder_on_another_host_that_gives_no_sign_of_life_is_replaced_after_the_limit(
    tmp_path: Path,
) -> None:
    write_record(tmp_path, elsewhere(since="2099-01-01 00:00:00 UTC"))  # its clock does not matter
    began = time.monotonic()
    lock = acquire(tmp_path, limit=0.5, say=quiet)
    assert 0.5 <= time.monotonic() - began < 10
    assert json.loads((tmp_path / RECORD).read_text())["pid"] == os.getpid()
    lock.release()


def test_a_record_that_was_cut_short_blocks_for_the_limit_and_not_longer(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(b'{"token": "12')
    acquire(tmp_path, limit=0.3, say=quiet).release()


def test_a_holder_that_was_replaced_while_it_was_suspended_says_so_and_leaves_the_record_alone(
    tmp_path: Path,
) -> None:
    lock = acquire(tmp_path)
    write_record(tmp_path, elsewhere())
    before = (tmp_path / RECORD).read_bytes()
    with pytest.raises(RunError, match=r"directory error: .* was taken over by process 4711 on gpu-17"):
        lock.require()
    lock.renew()
    lock.release()
    assert (tmp_path / RECORD).read_bytes() == before


def test_heartbeats_change_the_record_in_place_and_stop_with_the_release(tmp_path: Path) -> None:
    lock = acquire(tmp_path, beat=0.02)
    records = set()
    deadline = time.monotonic() + 10
    while len(records) < 3 and time.monotonic() < deadline:
        records.add((tmp_path / RECORD).read_bytes())
        time.sleep(0.01)
    assert len(records) >= 3
    assert len({len(record) for record in records}) == 1
    lock.release()
    time.sleep(0.1)
    assert not (tmp_path / RECORD).exists()


def test_a_record_that_somebody_deletes_comes_back(tmp_path: Path) -> None:
    lock = acquire(tmp_path)
    (tmp_path / RECORD).unlink()
    lock.require()
    with pytest.raises(ConfigError, match="in use"):
        acquire(tmp_path)
    lock.release()


def test_a_fork_of_the_holder_neither_releases_the_directory_nor_keeps_it(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from rezero_ray.holding.lock import acquire\n"
        "lock = acquire(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"  # runs the exit handlers of its copy
        "os.wait()\n"
        "lock.require()\n"
        "assert (Path(sys.argv[1]) / 'lock.json').exists()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(1)\n"
        "    time.sleep(60)\n"
        "    os._exit(0)\n"
        "print(child, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=False, stdout=subprocess.PIPE, text=True
    )
    child = int(found.stdout)
    try:
        assert found.returncode == -signal.SIGKILL
        acquire(tmp_path, say=pytest.fail).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_volume_that_shows_writes_after_a_refresh_is_refreshed_before_a_holder_counts_as_dead(
    tmp_path: Path,
) -> None:
    write_record(tmp_path, elsewhere(), 100.0)
    with pytest.raises(ConfigError, match="in use by process 4711 on gpu-17"):
        wait_until_free(
            tmp_path,
            limit=60.0,
            refresh=lambda: write_record(tmp_path, elsewhere(), 105.0),
            say=quiet,
            poll=0.01,
        )
    wait_until_free(tmp_path, limit=0.05, refresh=lambda: None, say=quiet, poll=0.01)
    assert not (tmp_path / RECORD).exists()


def test_a_lock_is_released_with_its_last_reference(tmp_path: Path) -> None:
    lock = acquire(tmp_path)
    del lock
    assert not (tmp_path / RECORD).exists()


def test_clearing_removes_dead_holders_only(tmp_path: Path) -> None:
    lock = acquire(tmp_path)
    clear_dead(tmp_path)
    lock.require()
    lock.release()
    write_record(tmp_path, elsewhere())
    clear_dead(tmp_path)
    assert (tmp_path / RECORD).exists()
    mine = new_holder("0" * 16)
    write_record(tmp_path, msgspec.structs.replace(mine, started=mine.started - 1))
    clear_dead(tmp_path)
    assert not (tmp_path / RECORD).exists()


def test_two_hosts_that_replace_the_same_holder_do_not_both_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other host's record arrives just after this one's was written, as it may on a network volume."""
    write_record(tmp_path, elsewhere())
    create = RunLock.create

    def and_then_the_other(lock: RunLock) -> bool:
        created = create(lock)
        write_record(tmp_path, elsewhere(token="e" * 16), 0.0)
        return created

    monkeypatch.setattr(RunLock, "create", and_then_the_other)
    beat = threading.Timer(2.0, lambda: write_record(tmp_path, elsewhere(token="e" * 16), 5.0))
    beat.start()
    with pytest.raises(ConfigError, match="in use by process 4711 on gpu-17"):
        acquire(tmp_path, limit=3.0, say=quiet)
    beat.join()
