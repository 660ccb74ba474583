"""What stands behind `atone.testing.verify`: the faults that a plan admits, one run with some of them, and the report.

Owns nothing public. `scenarios` derives what to run, `run` does it in the simulation, `calls` and `network` put the
faults where user code is called, `report` says what came of it. Must not decide about a saga.
"""
