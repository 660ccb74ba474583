"""The order example: three real services, an orchestrator, and the books that prove it right.

Run it with `python -m examples.orders.demo`; the README beside this file says how the parts fit.
Nothing in the package `atone` may import from here.
"""
