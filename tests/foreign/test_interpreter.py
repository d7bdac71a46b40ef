"""Claims about the interpreters of environments: what names them, where uv looks, what is said when uv fails."""

import sys
from pathlib import Path

import pytest

from rezero_ray.foreign import interpreter
from rezero_ray.foreign.interpreter import (
    CACHE_VARIABLE,
    MARKER,
    Interpreter,
    InterpreterProblem,
    cache_folder,
    uv_settings,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_is_where_the_variable_says_or_under_home(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder() == Path.home() / ".cache" / "rezero_ray" / "environments"


def test_the_same_requirements_in_any_order_have_one_key_and_others_another() -> None:
    key = Interpreter(("verifiers==0.1.10", "pyyaml"), None).key
    assert Interpreter(("pyyaml", "verifiers==0.1.10"), None).key == key
    ours = ".".join(map(str, sys.version_info[:3]))
    assert Interpreter(("verifiers==0.1.10", "pyyaml"), ours).key == key
    others = [
        Interpreter(("verifiers==0.1.11", "pyyaml"), None),
        Interpreter(("verifiers==0.1.10", "pyyaml"), "3.12"),
        Interpreter(("verifiers==0.1.10",), None),
    ]
    assert len({key, *(other.key for other in others)}) == 4


@pytest.mark.parametrize(
    ("line", "moves"), [("./env", True), ("-e env", True), ("../env", True), ("env", False)]
)
def test_a_relative_path_means_one_of_this_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, moves: bool
) -> None:
    here = Interpreter((line,), None).key
    monkeypatch.chdir(tmp_path)
    assert (Interpreter((line,), None).key != here) == moves


def test_one_without_its_marker_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Interpreter(("verifiers==0.1.10",), None)
    (wanted.folder / "bin").mkdir(parents=True)
    (wanted.folder / "left-over").touch()
    assert not wanted.ready
    commands: list[list[str]] = []

    def run(command: list[str], settings: dict[str, str], seconds: float, stdin: str = "") -> None:
        commands.append([*command, stdin])
        wanted.folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(interpreter, "_run", run)
    monkeypatch.setattr(interpreter, "pip_configuration", dict)
    python = wanted.path(10)
    assert python == wanted.folder / "bin" / "python" and wanted.ready
    assert not (wanted.folder / "left-over").exists() and (wanted.folder / MARKER).exists()
    (make, install) = commands
    assert make[1:] == ["venv", "--quiet", "--python", sys.executable, str(wanted.folder), ""]
    assert install[1:] == [
        "pip",
        "install",
        "--quiet",
        "--python",
        str(python),
        "-r",
        "-",
        "verifiers==0.1.10\n",
    ]
    assert wanted.path(10) == python and len(commands) == 2


def test_uv_looks_where_pip_looks_and_its_own_settings_win() -> None:
    pip = {"PIP_FIND_LINKS": "/a /b", "PIP_INDEX_URL": "https://one/simple", "PIP_CERT": "/ca.pem"}
    assert uv_settings(pip, {}) == {
        "UV_HTTP_TIMEOUT": "180",
        "UV_FIND_LINKS": "/a,/b",
        "UV_DEFAULT_INDEX": "https://one/simple",
        "SSL_CERT_FILE": "/ca.pem",
    }
    more = uv_settings({"PIP_EXTRA_INDEX_URL": "https://a https://b"}, {})
    assert (more["UV_INDEX"], more["UV_INDEX_STRATEGY"]) == ("https://a https://b", "unsafe-best-match")
    assert uv_settings({**pip, "UV_DEFAULT_INDEX": "https://two"}, {})["UV_DEFAULT_INDEX"] == "https://two"
    assert uv_settings({}, {"index-url": "https://three"})["UV_DEFAULT_INDEX"] == "https://three"


def test_what_uv_says_is_told_without_the_index_and_its_password(tmp_path: Path) -> None:
    secret = "https://me:word@index/simple"
    command = [sys.executable, "-c", f"import sys; sys.exit('no version of x at {secret}')"]
    with pytest.raises(InterpreterProblem, match=r"no version of x at \(the index\)"):
        interpreter._run(command, {"UV_DEFAULT_INDEX": secret}, 60)


def test_an_interpreter_alone_is_taken_as_it_is_and_must_exist() -> None:
    assert Interpreter((), sys.executable).path(1) == Path(sys.executable)
    with pytest.raises(InterpreterProblem, match="no interpreter"):
        Interpreter((), "/nowhere/python").path(1)
