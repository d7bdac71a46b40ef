"""Claims about the bound on what one test may add to pytest's memory."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

GREEDY = {
    "a_loop": "held = []\nwhile True: held.append(bytearray(b'x' * 2**22))",
    "hypothesis": "@given(st.integers())\ndef grow(_):\n    held = []\n"
    "    while True: held.append(bytearray(b'x' * 2**22))\ngrow()",
    "a_call_that_never_returns": "import itertools\nlist(itertools.repeat(0))",
}


@pytest.mark.parametrize("kind", GREEDY)
def test_a_test_that_takes_too_much_memory_is_named_and_ends(kind: str, tmp_path: Path) -> None:
    """0.25 GiB are allowed; the last kind never handles a signal, so pytest is killed."""
    body = "\n".join(f"    {line}" for line in GREEDY[kind].splitlines())
    (tmp_path / "test_greedy.py").write_text(
        f"from hypothesis import given, strategies as st\ndef test_modest(): pass\ndef test_greedy():\n{body}\n"
        "def test_after(): pass\n"
    )
    (tmp_path / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.memory_watch import watch as pytest_configure\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={"PATH": "/usr/bin:/bin", "REZERO_TEST_MEMORY_GIB": "0.25", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "memory watch: test_greedy.py::test_greedy: pytest's process has grown by" in done.stderr
    assert "in test_greedy\n" in done.stderr, "the stack is printed"
    if kind == "a_call_that_never_returns":
        assert done.returncode == -9
    else:
        assert "test_greedy.py::test_greedy added more than 0.25 GiB" in done.stdout
        assert "1 failed, 2 passed" in done.stdout
