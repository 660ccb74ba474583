"""`python -m tests.fuzz`: every decoder, or `--decoder NAME`, for `--seconds` each; exit status 1 if one breaks.

Inputs grow from samples and from `corpus/`; what leads to new lines is grown further. `--inputs N` gives each so many
instead, the same ones for the same `--seed`. `--keep` writes what was found, made small, into `corpus/`. `--atheris`
has libFuzzer choose the inputs, if the package atheris is there (`pip install atheris`; it is in no lock of ours).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz import corpus
from tests.fuzz.decoders import DECODERS
from tests.fuzz.engine import Finding, run, smaller

MEMORY_BYTES = 4 * 1024**3
ROOT = Path(__file__).resolve().parents[2]


def one(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fuzz one decoder in this process."""
    decoder = DECODERS[name]
    ran = run(decoder, seed=given.seed, seconds=given.seconds, inputs=given.inputs, corpus=corpus.load(name))
    findings = [smaller(decoder, finding) for finding in ran.findings.values()]
    if given.keep:
        corpus.keep(name, [finding.data for finding in findings], sorted(ran.corpus, key=len))
    told = [{"data": finding.data.hex(), "told": finding.told} for finding in findings]
    return {"inputs": ran.inputs, "refused": ran.refused, "edges": ran.edges, "seconds": ran.seconds, "found": told}


def apart(given: argparse.Namespace, name: str) -> dict[str, Any]:
    """Fuzz one decoder in a process of its own, whose memory is bounded; what ends that process is a finding too."""
    with tempfile.TemporaryDirectory(prefix="atone-fuzz-") as folder:
        answer = Path(folder) / "answer.json"
        module = (
            ["tests.fuzz.with_atheris", name, str(given.seconds)]
            if given.atheris
            else ["tests.fuzz", "--decoder", name]
        )
        command = [sys.executable, "-m", *module]
        if not given.atheris:
            command += ["--seed", str(given.seed)]
            command += ["--inputs", str(given.inputs)] if given.inputs else ["--seconds", str(given.seconds)]
            command += ["--keep"] * given.keep
        begun = time.monotonic()
        told = subprocess.run(
            [*command], cwd=ROOT, env={**os.environ, "ATONE_FUZZ_ANSWER": str(answer)}, capture_output=True, check=False
        )
        if answer.exists():
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return found
    end = told.stderr.decode(errors="replace")[-2000:]
    broken = [{"data": "", "told": f"the process ended with {told.returncode}\n{end}"}]
    return {"inputs": 0, "refused": 0, "edges": 0, "seconds": time.monotonic() - begun, "found": broken}


def tell(name: str, answer: dict[str, Any]) -> None:
    """Print what came of one decoder."""
    print(
        f"{name:<16} {answer['inputs']:>8} inputs {answer['refused']:>8} refused {answer['edges']:>5} edges "
        f"{answer['seconds']:>5.0f} s  {len(answer['found'])} findings",
        flush=True,
    )
    for found in answer["found"]:
        finding = Finding(name, bytes.fromhex(found["data"]), found["told"])
        print(f"  {finding.kind}\n    {finding.data[:200]!r}\n    {finding.told.strip().splitlines()[-1][:300]}")


def main() -> int:
    """Read what was asked for, do it, and tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--decoder", choices=sorted(DECODERS), help="only this one; default: all, each in a process")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each (60)")
    parser.add_argument("--inputs", type=int, help="so many for each instead, however long they take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="write what was found into the corpus")
    parser.add_argument("--atheris", action="store_true", help="libFuzzer chooses the inputs")
    given = parser.parse_args()
    if given.atheris and importlib.util.find_spec("atheris") is None:
        parser.error("--atheris needs the package. Run: pip install atheris")
    given.seconds = None if given.inputs else given.seconds
    where = os.environ.get("ATONE_FUZZ_ANSWER")
    if given.decoder and where:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        Path(where).write_text(json.dumps(one(given, given.decoder)), encoding="utf-8")
        return 0
    names = [given.decoder] if given.decoder else list(DECODERS)
    total = broken = 0
    with ThreadPoolExecutor(given.processes) as pool:
        for name, answer in zip(names, pool.map(lambda one: apart(given, one), names), strict=True):
            tell(name, answer)
            total += answer["inputs"]
            broken += len(answer["found"])
    print(f"fuzz: {len(names)} decoders, {total} inputs, {broken} findings" + (" (atheris)" if given.atheris else ""))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
