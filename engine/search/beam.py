"""The one search loop: best-of-N, greedy search, DLBS and DLBS-LA are its settings.

Legend: G prompts, B beams now alive, N = B * K candidates of a prompt (n = beam * K + ordinal),
R = G * N rows, C, F, h, w latent sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kinobeam.engine.config import SearchConfig
from kinobeam.engine.sampler import Models
from kinobeam.engine.schedules import Schedule
from kinobeam.engine.search.lookahead import Estimate, look_ahead
from kinobeam.engine.solvers import StepOutput, ddim
from kinobeam.engine.types import SearchStep, StepTrace
from kinobeam.kernels.beam import BeamMap, beam_expand, beam_prune, counter_normal, root_keys

Observer = Callable[[SearchStep], None]


class Beams(NamedTuple):
    """The state between two steps: latents, their noise keys, and the network's output on them."""

    latents_GB: Tensor
    keys_GB: Tensor
    prediction_GB: Tensor


class SearchResult(NamedTuple):
    """The winner of each prompt; `rewards_G` is None when nothing was scored."""

    latents_G: Tensor
    videos_G: Tensor
    rewards_G: Tensor | None


class Search:
    """A search over latents with fixed models, schedule and settings.

    Args:
        models: denoiser, decoder and reward.
        schedule: T steps.
        config: what to search.
        eta: noise of a step; must be above 0 when a beam has several candidates.
        observe: told after every step.
    """

    def __init__(
        self,
        models: Models,
        schedule: Schedule,
        config: SearchConfig,
        *,
        eta: float,
        observe: Observer | None = None,
    ) -> None:
        if config.candidates > 1 and eta <= 0:
            raise ValueError(
                f"eta: {config.candidates} candidates of a beam differ by the noise of the step, "
                f"so expected eta > 0, got {eta}; leave eta unset or use num_candidates=1"
            )
        if config.candidates == 1 and config.search_range != (1.0, 0.0):
            raise ValueError(
                "search_range: one candidate per beam leaves nothing to choose inside a range; "
                "use num_candidates > 1 or the whole range"
            )
        if config.num_lookahead_steps > schedule.num_steps:
            raise ValueError(
                f"num_lookahead_steps: expected at most the {schedule.num_steps} sampling steps, "
                f"got {config.num_lookahead_steps}"
            )
        self.models, self.schedule, self.config = models, schedule, config
        self.eta, self.observe = eta, observe
        # The last step chooses among beams that earlier steps have made.
        if not any(self._inside(step) for step in range(max(schedule.num_steps - 1, 1))):
            raise ValueError(
                f"search_range: expected a range with at least one step before the last in it, got "
                f"{config.search_range}, which none of the {schedule.num_steps} timesteps falls "
                "into; widen it or take more steps"
            )

    @torch.no_grad()
    def run(self, seeds: list[int], first_latents_G: Tensor | None = None) -> SearchResult:
        """Search, one seed per prompt.

        Args:
            seeds: G integers; beam b of a prompt starts from the noise of (seed, b).
            first_latents_G: (G, C, F, h, w) the start of beam 0 instead.
        """
        beams = self._start(seeds, first_latents_G)
        for step in range(self.schedule.num_steps - 1):
            beams = self._advance(beams, step)
        return self._finish(beams)

    def _start(self, seeds: list[int], first_latents_G: Tensor | None) -> Beams:
        num_beams = self.config.beams if self._inside(0) else 1
        keys_GB = root_keys(seeds, num_beams, device=self.models.device)
        shape = self.models.denoiser.latent_shape
        latents = counter_normal(keys_GB.flatten(), -1, shape).unflatten(0, keys_GB.shape)
        if first_latents_G is not None:
            latents[:, 0] = first_latents_G
        return Beams(latents, keys_GB, self._predict(latents, 0))

    def _advance(self, beams: Beams, step: int) -> Beams:
        """Expand every beam, look ahead, score, and keep the best."""
        alive = beams.keys_GB.shape[1]
        inside = self._inside(step)
        survivors = self.config.beams if inside and self._inside(step + 1) else 1
        # On entering the range one beam fills the whole pool.
        num_candidates = self.config.pool // alive if inside else 1
        move = self._ddim(beams, step)
        latents, keys = beam_expand(move.mean, move.std, beams.keys_GB, step, num_candidates)
        if survivors == latents.shape[1]:
            kept = Beams(latents, keys, self._predict(latents, step + 1))
            self._report(step, num_candidates, _everyone(latents), None, None)
            return kept
        estimate = self._look_ahead(latents, step)
        videos = self.models.decode(estimate.x0_R)
        scores = self._score(videos, latents.shape[:2])
        pool = [latents, keys, estimate.prediction_R.unflatten(0, latents.shape[:2])]
        with self.models.timed("select"):
            chosen = beam_prune(scores, pool, num_beams=survivors)
        self._report(step, num_candidates, chosen, scores, videos)
        return Beams(*(tensor[:, :survivors] for tensor in pool))

    def _finish(self, beams: Beams) -> SearchResult:
        """The last step has no candidates to choose from: score its beams, keep the best."""
        step = self.schedule.num_steps - 1
        move = self._ddim(beams, step)
        latents, _ = beam_expand(move.mean, move.std, beams.keys_GB, step, 1)
        videos = self.models.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        if self.models.reward is None:
            self._report(step, 1, _everyone(latents), None, None)
            return SearchResult(latents[:, 0], videos[:, 0], None)
        scores = self._score(videos.flatten(0, 1), latents.shape[:2])
        seen = videos.flatten(0, 1).clone()
        chosen = beam_prune(scores, [latents, videos], num_beams=1)
        self._report(step, 1, chosen, scores, seen)
        return SearchResult(latents[:, 0], videos[:, 0], chosen.scores_GB[:, 0])

    def _inside(self, step: int) -> bool:
        timestep = self.schedule.levels[step].timestep
        return self.config.covers(timestep, self.schedule.num_train_timesteps)

    def _ddim(self, beams: Beams, step: int) -> StepOutput:
        return ddim(self.schedule, step, beams.latents_GB, beams.prediction_GB, eta=self.eta)

    def _predict(self, latents_GB: Tensor, step: int) -> Tensor:
        timestep = self.schedule.levels[step].timestep
        rows = self.models.predict(latents_GB.flatten(0, 1), timestep, _owners(latents_GB))
        return rows.unflatten(0, latents_GB.shape[:2])

    def _look_ahead(self, latents_GN: Tensor, step: int) -> Estimate:
        owners = _owners(latents_GN)
        return look_ahead(
            self.schedule,
            step,
            latents_GN.flatten(0, 1),
            self.config.num_lookahead_steps,
            lambda latents, timestep: self.models.predict(latents, timestep, owners),
        )

    def _score(self, videos_R: Tensor, shape: tuple[int, ...]) -> Tensor:
        owners = [g for g in range(shape[0]) for _ in range(shape[1])]
        return self.models.score(videos_R, owners).unflatten(0, shape)

    def _report(
        self,
        step: int,
        num_candidates: int,
        kept: _Kept | BeamMap,
        scores_GN: Tensor | None,
        videos: Tensor | None,
    ) -> None:
        timestep = self.schedule.levels[step].timestep
        scores = None if scores_GN is None else scores_GN.tolist()
        source, rank = kept.source_GB, kept.rank_GB
        trace = StepTrace(step, timestep, num_candidates, scores, source.tolist(), rank.tolist())
        self.models.trace.steps.append(trace)
        if self.observe is not None:
            best = None if scores_GN is None else scores_GN.max().item()
            total = self.schedule.num_steps
            self.observe(SearchStep(step, total, timestep, scores_GN, source, rank, best, videos))


class _Kept(NamedTuple):
    """The map of a step that prunes nothing."""

    source_GB: Tensor
    rank_GB: Tensor


def _everyone(latents_GB: Tensor) -> _Kept:
    slots = torch.arange(latents_GB.shape[1]).expand(latents_GB.shape[0], -1)
    return _Kept(slots, slots)


def _owners(latents_GB: Tensor) -> list[int]:
    """The prompt of each row of the flattened (G, B) tensor."""
    return [g for g in range(latents_GB.shape[0]) for _ in range(latents_GB.shape[1])]
