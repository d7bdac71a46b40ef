"""Program: ends a Sandbox of Modal's where the process that made it is gone without having ended it.

    python modal_watch.py SANDBOX_ID

Ray ends an actor without its exit handlers, and kills its direct children with it. So this one has another parent and
a session of its own, and waits for the end of its input: what ends there without the word `done` was killed. Modal
itself would end the Sandbox after ten idle minutes.
"""

import os
import sys
import time

TRIES, PAUSE_SECONDS = 5, 10.0


def main() -> None:
    if os.fork():
        os._exit(0)  # whoever started this waits for it; the child belongs to init
    sandbox_id = sys.argv[1]
    if sys.stdin.buffer.read() != b"done":
        _end(sandbox_id)


def _end(sandbox_id: str) -> None:
    sys.path.pop(0)  # this folder
    import modal

    for number in range(1, TRIES + 1):
        try:
            modal.Sandbox.from_id(sandbox_id).terminate()
        except modal.exception.NotFoundError:
            return
        except Exception as error:  # of the client, of gRPC, of the network
            print(f"Sandbox {sandbox_id} was left behind: {error} (try {number} of {TRIES})", file=sys.stderr)
            time.sleep(PAUSE_SECONDS)
        else:
            print(f"Sandbox {sandbox_id} was left behind and is ended", file=sys.stderr)
            return


if __name__ == "__main__":
    main()
