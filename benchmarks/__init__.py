"""Benchmarks: what the parts cost, against what a user would pick otherwise. `sampling` is the decode engine's."""
