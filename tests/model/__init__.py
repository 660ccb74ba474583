"""The model check: all that can happen to one saga between two workers, tried breadth-first on the real `decide`.

`promise.py` says in one place what the store promises, `worker.py` what a worker does, `moves.py` what may happen (on
the way to participants: `network.py`; as time goes by: `passing.py`), `judge.py` what must hold; `search.py` looks
everywhere. `python -m tests.model` runs it, `--mutants` breaks rules to see that it notices.
"""
