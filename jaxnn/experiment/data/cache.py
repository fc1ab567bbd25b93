"""Arrays that are kept on disk because making them again is slow: what scikit-learn
loads, splits and downloads."""

import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence

import numpy as np


def cache_folder() -> pathlib.Path:
    """Where jaxnn keeps what it can make again: `$JAXNN_CACHE`, else `~/.cache/jaxnn`."""
    return pathlib.Path(
        os.environ.get("JAXNN_CACHE") or pathlib.Path.home() / ".cache" / "jaxnn"
    )


def cached(
    name: str, key: object, make: Callable[[], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """The arrays that `make` returns, from the cache where it has them.

    Args:
      name: of the file, for people.
      key: everything that the arrays depend on; its repr is hashed.
      make: called when the file is absent or damaged. No array of objects.
    """
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    path = cache_folder() / "datasets" / f"{name}-{digest}.npz"
    arrays = _read(path)
    if arrays is None:
        arrays = list(make())
        _write(path, arrays)
    return arrays


def _read(path: pathlib.Path) -> list[np.ndarray] | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
    ):  # absent or half-written: load from the source again
        return None


def _write(path: pathlib.Path, arrays: list[np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, suffix=".npz", delete=False
        ) as file:
            np.savez(file, *arrays)
        os.replace(file.name, path)
    except OSError as error:
        print(f"note: no data cache in {path.parent}: {error.strerror}")
