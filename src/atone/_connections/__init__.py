"""Connections that are the caller's, of whatever driver, behind one small face.

Owns how each driver is recognised, asked and told apart. Must not begin, commit or roll back a transaction. Used by
the barrier, and by whatever joins a transaction that is not Atone's.
"""
