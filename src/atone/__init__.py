"""Atone: sagas for Python.

Owns the public names: what stands in `__all__` is promised, everything else may move.
Must not import an optional part: `import atone` has to stay light.
Called by applications; the parts of Atone itself import from their own modules.
"""

__all__: list[str] = []
