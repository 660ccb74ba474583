"""How long `import atone` takes: fresh interpreters with and without it, turn by turn.

The difference of the medians is the figure; the bare interpreter beside it shows what the machine does meanwhile.
It must not import the package itself. Run as `python -m benchmarks.import_time --json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from statistics import median
from time import perf_counter

WORKLOADS = {"bare": "pass", "atone": "import atone"}
GOAL_MS = 100.0


def time_one_process_ms(code: str) -> float:
    """Run `code` in a fresh interpreter, start and exit included."""
    begun = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)
    return (perf_counter() - begun) * 1000


def measure(rounds: int) -> dict[str, list[float]]:
    """Interleave the workloads, so that a busy moment hits both; one unmeasured round warms the caches."""
    for code in WORKLOADS.values():
        time_one_process_ms(code)
    samples: dict[str, list[float]] = {name: [] for name in WORKLOADS}
    for _ in range(rounds):
        for name, code in WORKLOADS.items():
            samples[name].append(time_one_process_ms(code))
    return samples


def report(samples: dict[str, list[float]]) -> dict[str, object]:
    figures: dict[str, object] = {"benchmark": "import_time", "python": platform.python_version()}
    for name, times in samples.items():
        figures[f"{name}_median_ms"] = round(median(times), 1)
        figures[f"{name}_min_ms"] = round(min(times), 1)
        figures[f"{name}_max_ms"] = round(max(times), 1)
    figures["rounds"] = len(samples["bare"])
    figures["import_ms"] = round(median(samples["atone"]) - median(samples["bare"]), 1)
    figures["import_min_ms"] = round(min(samples["atone"]) - min(samples["bare"]), 1)
    figures["goal_ms"] = GOAL_MS
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long `import atone` takes.")
    parser.add_argument("--rounds", type=int, default=15, help="fresh processes of each kind (default 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    figures = report(measure(options.rounds))
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:16} {value}")


if __name__ == "__main__":
    main()
