"""A rank that stops in the middle of its work."""

import os
import signal

from actors.all_reduce import AllReduceRank


class HangingRank(AllReduceRank):
    """Rank 1 stops itself before the large sum: it does not even hear that it is to end."""

    def large_s(self, mib: int) -> float:
        if self._rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().large_s(mib)
