"""The law: what a saga does next, as pure functions over frozen data.

Nothing here awaits, reads a clock, draws a random number, logs, or imports beyond the standard library.
Every engine calls `decide`; no other place has an opinion about a saga's state.
"""
