"""Measurements: each a module of its own, run as `python -m benchmarks.NAME --json`.

Nothing here asserts; a figure that matters stands in the docs with the command that printed it.
"""
