"""On-disk cache of arrays that are slow to make: what scikit-learn loads and splits."""

import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Sequence

import numpy as np


def cache_folder() -> pathlib.Path:
    """Returns the root of all caches: `$JAXNN_CACHE`, else `~/.cache/jaxnn`."""
    return pathlib.Path(
        os.environ.get("JAXNN_CACHE") or pathlib.Path.home() / ".cache" / "jaxnn"
    )


def cached(
    name: str, key: object, make: Callable[[], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Returns the arrays of `make`, from the cache if it has them.

    Args:
      name: readable part of the file name.
      key: everything that the arrays depend on; its repr is hashed.
      make: makes the arrays if the file is missing or damaged. Arrays of objects are
        not supported.
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
    # Missing or damaged: make the arrays again.
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def _write(path: pathlib.Path, arrays: list[np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A temporary name of its own: several processes may write the same entry.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, suffix=".npz", delete=False
        ) as file:
            np.savez(file, *arrays)
        os.replace(file.name, path)
    # A cache that cannot be written costs time and is no error.
    except OSError as error:
        print(f"note: no data cache in {path.parent}: {error.strerror}")
