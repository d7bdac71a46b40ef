"""Where the MLflow store of a run lies, and what can be said of it without MLflow: is it there, is it whole."""

import os
import re
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from rezero_ray.config import Config

STORE = "mlflow.db"

ANSWER_SECONDS = 3.0
"""A server that does not answer the preflight within this time is reported; the run starts all the same."""


def tracking_uri(config: Config, output_dir: Path) -> str:
    """`mlflow.tracking_uri`, else MLFLOW_TRACKING_URI, else a SQLite file: `default_store`."""
    given = config.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return given or sqlite_uri(default_store(output_dir))


def default_store(output_dir: Path, *, is_writable: Callable[[Path], bool] | None = None) -> Path:
    """The store next to the run directory, which all runs there share; inside it where that folder cannot be
    written to or is on another volume: what lies outside of a mounted output_dir is lost with its container."""
    output_dir = output_dir.absolute()
    if (output_dir / STORE).exists():
        return output_dir / STORE
    parent, nearest = output_dir.parent, _nearest(output_dir)
    outside = _nearest(parent)
    if nearest.stat().st_dev != outside.stat().st_dev or not (is_writable or _is_writable)(outside):
        return output_dir / STORE
    return parent / STORE


def sqlite_uri(file: Path) -> str:
    """The address of an absolute path. `?` and `%` are quoted: they mean something else in an address."""
    return "sqlite:///" + re.sub(r"[?%]", lambda found: f"%{ord(found[0]):02X}", str(file))


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite address; None for other stores."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))


def shown_uri(uri: str) -> str:
    """For a reader: without the password of `scheme://user:password@host`."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", uri)


def sqlite_problem(file: Path) -> str | None:
    """Why MLflow cannot record in this file; None where it can, or will make it."""
    if not file.parent.is_dir():
        return f"the directory {file.parent} does not exist; make it: mkdir -p {file.parent}"
    if not file.exists():
        why = "" if _is_writable(file.parent) else f"{file.parent} is not writable; name another store"
        return why or None
    move = f"move it away (mv {file} {file}.broken); a new one is made"
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as store:
            tables = {
                name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except sqlite3.OperationalError as error:
        return None if "locked" in str(error) else f"{file} cannot be opened: {error}"
    except sqlite3.DatabaseError as error:
        return f"{file} is no SQLite store: {error}; {move}"
    if any(name.startswith("_alembic_tmp_") for name in tables) or (
        tables and "alembic_version" not in tables
    ):
        return f"{file} was left half made by an MLflow that was interrupted; {move}"
    return None if os.access(file, os.W_OK) else f"{file} is read-only; name another store"


def unreachable(uri: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """Why the server of an http address cannot be asked; None where anything answers, or for another address."""
    if not uri.startswith(("http://", "https://")):
        return None
    import requests

    try:
        with requests.get(uri, timeout=(seconds, seconds), stream=True, allow_redirects=False):
            return None
    except requests.Timeout:
        return f"no answer within {seconds:.0f} s"
    except requests.RequestException as error:
        return _cause(error)


def _cause(error: BaseException) -> str:
    """The innermost reason: the outer ones repeat it with addresses of objects."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _is_writable(directory: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
