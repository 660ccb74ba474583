"""Bridges to libraries that Atone does not need.

Each module imports its library at the top, and is itself imported only when that library is in use.
"""
