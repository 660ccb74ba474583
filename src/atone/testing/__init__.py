"""What helps to test sagas, and to test what Atone stands on.

Owns `contracts`, the suite that every store has to pass, and `through`, a wrapper to override a method of. It must not
need a test framework. Called by tests: Atone's own, and those of anyone who writes an adapter.
"""
