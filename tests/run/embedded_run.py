"""Program: two attempts of one run inside another program. The first as a notebook's cell makes it, on a main thread
with a running event loop and a standard output that is no file; the second in a thread of its own.

    python -m tests.run.embedded_run RESULT ARGUMENT ...

The arguments are those of `rezero_ray.train`, for one step; the exit statuses are written to RESULT as JSON.
"""

import asyncio
import contextlib
import io
import json
import sys
import threading
from pathlib import Path

from rezero_ray import train


def main() -> None:
    result, *arguments = sys.argv[1:]

    async def cell() -> int:
        return train.main(arguments)

    output = io.StringIO()
    statuses: list[int] = []
    with contextlib.redirect_stdout(output):
        statuses.append(asyncio.run(cell()))
        again = [*arguments, "--resume", "--max_steps", "2"]
        thread = threading.Thread(target=lambda: statuses.append(train.main(again)))
        thread.start()
        thread.join()
    sys.stdout.write(output.getvalue())
    Path(result).write_text(json.dumps(statuses), "utf-8")


if __name__ == "__main__":
    main()
