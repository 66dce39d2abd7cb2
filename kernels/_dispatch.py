"""Chooses a backend from an operator's ordered table. A refusal always carries its reason."""

from collections.abc import Callable
from typing import Any, NamedTuple

from kinobeam.kernels import _env


class Backend(NamedTuple):
    """One implementation; `refuse` takes what `run` takes and never synchronises with a device."""

    name: str
    run: Callable[..., Any]
    refuse: Callable[..., str | None]


def never(*args: Any, **kwargs: Any) -> None:
    """The `refuse` of a backend that takes everything."""


def refusals(table: tuple[Backend, ...], *args: Any, **kwargs: Any) -> dict[str, str | None]:
    """Why each backend would refuse, in table order; None means that it would run."""
    return {entry.name: entry.refuse(*args, **kwargs) for entry in table}


def choose(
    operator: str, table: tuple[Backend, ...], backend: str, *args: Any, **kwargs: Any
) -> Backend:
    """The backend to run; "auto" is KINOBEAM_BACKEND if set, else the first of the table that does
    not refuse.

    Raises:
        ValueError: no such backend, or the named one refuses (the message says why, and which would
        work).
    """
    if backend == "auto":
        backend = _env.BACKEND.get()
    if backend == "auto":
        reasons: dict[str, str | None] = {}
        for entry in table:
            reasons[entry.name] = entry.refuse(*args, **kwargs)
            if reasons[entry.name] is None:
                return entry
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(f"{operator}: no backend takes these arguments ({listed})")
    by_name = {entry.name: entry for entry in table}
    if backend not in by_name:
        raise ValueError(
            f"{operator}: expected backend 'auto' or one of {list(by_name)}, got {backend!r}"
        )
    reason = by_name[backend].refuse(*args, **kwargs)
    if reason is not None:
        works = [name for name, why in refusals(table, *args, **kwargs).items() if why is None]
        raise ValueError(
            f"{operator}: backend {backend!r} refuses: {reason}; backends that would work: {works}"
        )
    return by_name[backend]


def dispatch(
    operator: str, table: tuple[Backend, ...], backend: str, *args: Any, **kwargs: Any
) -> Any:
    return choose(operator, table, backend, *args, **kwargs).run(*args, **kwargs)
