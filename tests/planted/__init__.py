"""A small shop, sixteen mistakes that people make in sagas, and which helper of `atone.testing` finds each.

`python -m tests.planted` prints the table; the suite keeps it true.
"""
