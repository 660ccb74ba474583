"""The shell: it loads, asks `_core.decide`, commits, and performs. Thin and asynchronous.

Owns tasks, timers, threads and the lease; must not have an opinion on what a saga does next. Used by `Orchestrator`
and the command line. `wire` is the journal's format, `runner` one saga, `worker` all of this process's.
"""
