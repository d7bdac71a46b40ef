"""What bandit says about a program: its own checks, run in this process (it parses, and executes nothing)."""

import functools
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bandit.core.config import BanditConfig
from bandit.core.manager import BanditManager

TOLERATED = frozenset({"B403", "B404", "B405", "B603", "B607"})
"""Notes on an import or on any use of a subprocess, which the right repair has as well."""


@dataclass(frozen=True)
class Finding:
    """One finding: bandit's test, the line, and its words."""

    test: str
    line: int
    text: str


@functools.lru_cache(maxsize=4096)
def scan(source: str) -> tuple[Finding, ...]:
    """Findings in a program that parses, without the tolerated ones; `# nosec` is not heard."""
    logging.getLogger("bandit").setLevel(logging.ERROR)
    manager = BanditManager(BanditConfig(), "file", ignore_nosec=True)
    with tempfile.TemporaryDirectory(prefix="rezero-bandit-") as folder:
        path = Path(folder, "program.py")
        path.write_text(source, errors="replace")
        manager.discover_files([str(path)])
        manager.run_tests()
    if manager.skipped:
        raise ValueError(f"bandit could not read the program: {manager.skipped[0][1]}")
    issues = manager.get_issue_list("LOW", "LOW")
    return tuple(Finding(i.test_id, i.lineno, i.text) for i in issues if i.test_id not in TOLERATED)


def share_removed(before: str, after: str) -> float:
    """In [0, 1]: share of the findings of `before` that `after` no longer has, less for each new one."""
    old, new = (Counter(finding.test for finding in scan(source)) for source in (before, after))
    if not old:
        return 0.0
    return (1 - (old & new).total() / old.total()) / (1 + (new - old).total())
