"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path in a folder beside `path`: what is written in this folder moves to the folder of `path` at the end.

    A process that is killed, or a disk that is full, leaves the file as it was. Several files cannot move at once:
    their index, a `.json` file, is removed before the first of them moves, and moves last.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with tempfile.TemporaryDirectory(prefix=".kmix-", dir=folder) as partial:
        yield os.path.join(partial, name)
        files = sorted(os.listdir(partial), key=lambda file: (file.endswith(".json"), file))
        if len(files) > 1 and os.path.exists(os.path.join(folder, files[-1])):
            os.remove(os.path.join(folder, files[-1]))
        for file in files:
            os.replace(os.path.join(partial, file), os.path.join(folder, file))
