"""Benchmarks of the operators and of the engine end to end."""
