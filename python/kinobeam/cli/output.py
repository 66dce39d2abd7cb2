"""The folder a command writes to: checked before the work; each file in it is whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class OutputFolder:
    """A folder whose files appear by rename, so that none is ever seen half written.

    Args:
        path: created if missing.
        names: the files that a run may write. Those left by an earlier run go when the first new
            one is written: the folder never mixes two runs.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self._names = path, tuple(names)
        self.written: list[Path] = []
        self._check()

    def _check(self) -> None:
        probe = self.path / f".probe.{os.getpid()}.partial"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OSError(
                f"output: cannot write to {str(self.path)!r} ({error.strerror}); "
                "name a folder that can be written to"
            ) from error

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path to write to: it becomes `name` when the block ends well, and goes otherwise."""
        assert name in self._names
        if not self.written:
            self._clear()
        partial = self.path / f".{name}.{os.getpid()}.partial"
        try:
            yield partial
            os.replace(partial, self.path / name)
        finally:
            partial.unlink(missing_ok=True)
        self.written.append(self.path / name)

    def _clear(self) -> None:
        for name in self._names:
            (self.path / name).unlink(missing_ok=True)
