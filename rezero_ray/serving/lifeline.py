"""Program: ends a group of processes and removes a folder as soon as the process that holds its input is gone.

    python lifeline.py FOLDER

The group is read from the first line of the input. A second line says that all has ended in the ordinary way. It runs
in a session of its own, where no signal to its parent's group reaches it, and imports nothing of this project.
"""

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    group, _, done = sys.stdin.buffer.read().partition(b"\n")
    if group and not done:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    if not done:
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
