"""Every KINOBEAM_* variable, typed; each is read when asked for, so a test may change it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Variable(Generic[T]):
    name: str
    default: T
    parse: Callable[[str], T]
    help: str

    def get(self) -> T:
        text = os.environ.get(self.name, "")
        if text == "":
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise ValueError(f"{self.name}={text!r}: {error}; {self.help}") from None


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("expected 0 or 1")
    return text == "1"


BACKEND = Variable(
    "KINOBEAM_BACKEND", "auto", str, "the backend that backend='auto' means, in every operator"
)
NATIVE = Variable(
    "KINOBEAM_NATIVE", True, _flag, "0 leaves the native module kinobeam.kernels._C unloaded"
)

# Read by setup.py, which cannot import this package; listed so that this file is the whole list.
SKIP_BUILD = Variable(
    "KINOBEAM_SKIP_BUILD", False, _flag, "1 installs without the native module (pure Python)"
)
CUDA = Variable("KINOBEAM_CUDA", False, _flag, "1 requires the CUDA kernels to be built")

ALL: tuple[Variable[str] | Variable[bool], ...] = (BACKEND, NATIVE, SKIP_BUILD, CUDA)
