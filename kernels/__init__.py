"""The ground floor: one folder per operator, imported from its own folder.

`from kinobeam.kernels.beam import beam_prune`
"""
