"""The peers that Atone is measured beside: each in an environment of its own, made from a pinned list.

`catalogue` lists them, `environments` makes what they need, `servers` runs those that have one, `apps` holds what a
user of each would write. Nothing here compares; `benchmarks.compare` does.
"""
