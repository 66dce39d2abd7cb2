"""What a search is asked to do, validated once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["none", "best_of_n", "greedy", "dlbs"]
METHODS: tuple[str, ...] = get_args(Method)
_DEFAULT_SIZES = {"none": (1, 1), "best_of_n": (8, 1), "greedy": (1, 8), "dlbs": (4, 2)}
_SINGLE = {"none": "both", "best_of_n": "num_candidates", "greedy": "num_beams"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How to search over latents while sampling.

    Best-of-N is `num_candidates=1`, greedy search is `num_beams=1`, diffusion latent beam search
    (DLBS) is the rest, and with `num_lookahead_steps > 1` it is DLBS-LA. Spend a budget on
    look-ahead first, then on beams and candidates, then on sampling steps.

    Args:
        method: `"none"`, `"best_of_n"`, `"greedy"` or `"dlbs"`.
        num_beams: latents B that are kept at every step (for best-of-N: N). Default by method.
        num_candidates: candidates K that every beam expands to at every step. Default by method.
        num_lookahead_steps: deterministic steps L from a candidate to the estimate that is scored.
        search_range: (high, low) as fractions of the noise schedule, 1 pure noise. Candidates are
            expanded and scored only at timesteps inside; outside, one beam goes on unscored.

    Raises:
        ValueError: an unknown method, a count below 1, a count that contradicts the method, or a
            range that is not 1 >= high > low >= 0.

    Source:
        Diffusion latent beam search (arXiv 2501.19252), algorithm 1.

    Example:
        >>> SearchConfig(method="dlbs", num_beams=4, num_candidates=2, num_lookahead_steps=6).pool
        8
    """

    method: Method = "none"
    num_beams: int | None = None
    num_candidates: int | None = None
    num_lookahead_steps: int = 1
    search_range: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}; got {self.method!r}")
        for name in ("num_beams", "num_candidates", "num_lookahead_steps"):
            _check_count(name, getattr(self, name))
        fixed = _SINGLE.get(self.method)
        for name in ("num_beams", "num_candidates"):
            if fixed in ("both", name) and getattr(self, name) not in (None, 1):
                raise ValueError(
                    f"{name}: method {self.method!r} always has 1, got {getattr(self, name)}; "
                    f"use method='dlbs' for more"
                )
        if not isinstance(self.search_range, tuple) or len(self.search_range) != 2:
            raise ValueError(
                f"search_range: expected a tuple (high, low), got {self.search_range!r}"
            )
        high, low = self.search_range
        if not 1 >= high > low >= 0:
            raise ValueError(
                "search_range: expected (high, low) with 1 >= high > low >= 0, "
                f"got {self.search_range}"
            )

    @property
    def beams(self) -> int:
        """B, with the method's default filled in."""
        return self.num_beams or _DEFAULT_SIZES[self.method][0]

    @property
    def candidates(self) -> int:
        """K, with the method's default filled in."""
        return self.num_candidates or _DEFAULT_SIZES[self.method][1]

    @property
    def pool(self) -> int:
        """B * K, the candidates among which B survive."""
        return self.beams * self.candidates

    @property
    def scores(self) -> bool:
        """Whether this search needs a reward at all."""
        return self.method != "none"

    def covers(self, timestep: float, num_train_timesteps: int) -> bool:
        """Whether candidates are expanded and scored at `timestep`."""
        high, low = self.search_range
        return low * num_train_timesteps <= timestep <= high * num_train_timesteps


def _check_count(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
