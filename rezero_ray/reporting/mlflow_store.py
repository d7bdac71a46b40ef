"""Makes the SQLite store of MLflow: whole or not at all, however many runs begin at once.

MLflow makes its tables in many steps, and two processes that do so in one file leave it broken for good. Here the
tables are made in a file of another name, which then appears under its own by a hard link: the first wins.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rezero_ray.holding.guard import alone_in
from rezero_ray.tracking.store import sqlite_file, sqlite_problem, sqlite_uri

MAKE_SECONDS = 60.0
"""Others wait for the one that makes the store, which takes seconds; after this long they make it themselves."""


LEFT_SECONDS = 600.0
"""A half-made file that is older has nobody who still makes it."""


class StoreError(Exception):
    """The store cannot be used, and why."""


def ensure_store(uri: str) -> None:
    """Make the SQLite store of this address where it is not there yet; nothing for other stores.

    Raises:
        StoreError: it is broken, or cannot be made.
    """
    file = sqlite_file(uri)
    if file is None or file.name in ("", ":memory:"):
        return
    problem = sqlite_problem(file)
    if problem is not None:
        raise StoreError(problem)
    with alone_in(file.parent, MAKE_SECONDS):
        if _is_empty(file):
            _make(file)


def artifact_root(uri: str) -> str | None:
    """Where artifacts of a SQLite store lie: beside it, whatever the current directory is. None: the server knows."""
    file = sqlite_file(uri)
    return None if file is None else (file.absolute().parent / "mlruns").as_uri()


def _is_empty(file: Path) -> bool:
    if not file.exists():
        return True
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)) as store:
        return store.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _make(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    new.touch()
    _delete_left(new, file)
    try:
        with no_stray_folder(new):
            SqlAlchemyStore(sqlite_uri(new.absolute()), artifact_root(sqlite_uri(file))).engine.dispose()
        with closing(sqlite3.connect(new)) as store:
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if file.exists():  # without a table in it, or another made it meanwhile
            if _is_empty(file):
                new.replace(file)
        else:
            _link(new, file)
    finally:
        for left in file.parent.glob(f"{new.name}*"):
            left.unlink(missing_ok=True)


def _delete_left(new: Path, file: Path) -> None:
    """Of makers that were killed; the file system's own clock tells how long ago."""
    for left in file.parent.glob(f".{file.name}.*"):
        with suppress(OSError):
            if new.stat().st_mtime - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()


def _link(new: Path, file: Path) -> None:
    try:
        os.link(new, file)
    except FileExistsError:
        return
    except OSError:  # no hard links there; alone_in has kept the others out
        new.replace(file)


@contextmanager
def no_stray_folder(file: Path) -> Iterator[None]:
    """MLflow makes the parent directory of a SQLite address without unquoting it: the empty folders that only the
    quoted path has are removed again, those of a process that was killed among them."""
    real = file.absolute()
    quoted = Path(sqlite_uri(real).removeprefix("sqlite:///"))
    try:
        yield
    finally:
        for folder in quoted.parents:
            if folder in real.parents:
                break
            with suppress(OSError):
                folder.rmdir()
