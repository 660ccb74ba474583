"""`python -m atone`: the same as the console command `atone`.

Owns nothing but this second door. Must not be imported by anybody, since importing it runs the command line.
Called by the interpreter.
"""

from __future__ import annotations

import sys


def _run() -> int:
    from atone.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(_run())
