"""Beams: noise that follows a candidate's lineage, fan-out, and pruning into stable slots."""

from kinobeam.kernels.beam.api import beam_prune
from kinobeam.kernels.beam.noise import beam_expand, child_keys, counter_normal, root_keys
from kinobeam.kernels.beam.reference import BeamMap

__all__ = ["BeamMap", "beam_expand", "beam_prune", "child_keys", "counter_normal", "root_keys"]
