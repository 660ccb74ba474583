"""One decoder under libFuzzer: atheris watches which branches of Atone an input takes, and chooses the next ones.

Half of the inputs are changed by our own hand, which knows fields and JSON. A finding is noted and the run goes on.
Needs the package atheris, which nothing else here does. Called by the command, in a process of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any


def main() -> None:
    """Fuzz the decoder that the first argument names, for as many seconds as the second one says."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["atone"]):
        from tests.fuzz import corpus
        from tests.fuzz.decoders import DECODERS
    from tests.fuzz.engine import Broken, Finding, judge
    from tests.fuzz.mutate import BYTES_MAX, mutate

    name, seconds = sys.argv[1], float(sys.argv[2])
    decoder, begun = DECODERS[name], time.monotonic()
    first = [*decoder.samples(), *corpus.load(name)]
    found: dict[str, Finding] = {}
    counts = {"inputs": 0, "refused": 0}
    told_at = begun

    def feed(data: bytes) -> None:
        nonlocal told_at
        counts["inputs"] += 1
        if time.monotonic() - told_at > 1:  # libFuzzer ends the process without a word to the interpreter
            told_at = time.monotonic()
            tell()
        try:
            counts["refused"] += not judge(decoder, data)
        except Broken as broken:
            kind = str(broken)
            if kind not in found or len(data) < len(found[kind].data):
                found[kind] = Finding(name, data, f"{kind}\n{broken.__cause__!r}")

    def change(data: bytes, size_max: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            changed: bytes = atheris.Mutate(data, size_max)
            return changed
        return mutate(data, random, first, decoder.words)[:size_max]

    def tell() -> None:
        told = [{"data": one.data.hex(), "told": one.told} for one in found.values()]
        answer = {**counts, "edges": 0, "seconds": time.monotonic() - begun, "found": told}
        Path(os.environ["ATONE_FUZZ_ANSWER"]).write_text(json.dumps(answer), encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="atone-atheris-") as folder:
        for at, data in enumerate(first):
            (Path(folder) / str(at)).write_bytes(data)
        options = [
            f"-max_total_time={seconds:.0f}",
            f"-max_len={BYTES_MAX}",
            "-rss_limit_mb=4096",
            "-timeout=60",
            "-verbosity=0",
        ]
        atheris.Setup([sys.argv[0], *options, folder], feed, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
