"""The order saga as a user of each peer would write it, and the loop that loads it.

Each module runs in its peer's own environment, so nothing but the standard library, the peer, `shop`, `task` and `load`
may be imported. Between the two lines `user code` stands what a user writes.
"""
