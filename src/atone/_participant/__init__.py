"""A participant at work: its tables, one delivery in one transaction, time-outs, commands, and the loops of all these.

Owns what happens inside a service that reacts to events or answers commands, in the service's own database. Must not
need Atone's store, and must not decide what a reaction is owed: `_core.event_guard` does. Called by `atone.serving`,
`atone.inbox` and `atone.outbox`.
"""
