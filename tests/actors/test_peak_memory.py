"""Peaks of resident memory, of a process and of what it started."""

import subprocess
import sys

from actors.peak_memory import peak_resident_bytes

MIB = 2**20

CHILD = f"""
held = bytearray(b"x" * {100 * MIB})
print("holds", flush=True)
input()
"""


def test_the_memory_of_a_child_counts_while_it_lives() -> None:
    before = peak_resident_bytes()
    with subprocess.Popen(
        [sys.executable, "-S", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        with_child = peak_resident_bytes()
        child.communicate("\n")
    assert before > 5 * MIB
    assert with_child - before > 95 * MIB
    assert peak_resident_bytes() < with_child - 90 * MIB
