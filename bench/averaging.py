"""Averaging 16 updates of 100 MB: time and memory, ours beside Flower's and the textbook's, in one run.

    make bench-averaging

Each runs in a process of its own. Time: of the averaging alone, the updates lying where each engine wants them (ours: in
files, as they came over the wire, in the system's cache; the others: in memory). Memory: the most that the process held of
its own (files that are only mapped are not counted), less what it held before. Best of three.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOWER = ROOT / ".bench" / "flower" / "bin" / "python"
UPDATES, MEGABYTES, TIMES = 16, 100, 3

COMMON = f"""
import json, sys, time, threading
import numpy as np
N, UPDATES, TIMES = {MEGABYTES} * 250_000, {UPDATES}, {TIMES}
def private():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1000
def measure(once):
    before, most, best, done = private(), 0, 1e9, threading.Event()
    def watch():
        nonlocal most
        while not done.wait(0.005):
            most = max(most, private() - before)
    threading.Thread(target=watch, daemon=True).start()
    for _ in range(TIMES):
        began = time.perf_counter()
        result = once()
        best = min(best, time.perf_counter() - began)
        del result
    done.set()
    print(json.dumps({{"seconds": round(best, 2), "megabytes": round(most)}}))
def update(seed):
    return np.random.Generator(np.random.PCG64(seed)).random(N, dtype=np.float32)
"""

ENGINES = {
    "DML": (
        sys.executable,
        """
from pathlib import Path
from dmlworker.weights import mapped, pieces
from dmlworker.aggregation import fedavg
folder = Path(sys.argv[1])
for seed in range(UPDATES):
    with open(folder / str(seed), "wb") as file:
        file.writelines(pieces([update(seed)]))
measure(lambda: fedavg([(mapped(folder / str(seed)), 100 + seed) for seed in range(UPDATES)]))
""",
    ),
    "Flower": (
        str(FLOWER),
        """
from flwr.server.strategy.aggregate import aggregate
results = [([update(seed)], 100 + seed) for seed in range(UPDATES)]
measure(lambda: aggregate(results))
""",
    ),
    "np.average": (
        sys.executable,
        """
updates = [update(seed) for seed in range(UPDATES)]
measure(lambda: np.average(updates, axis=0, weights=range(100, 100 + UPDATES)))
""",
    ),
}


def run(name: str) -> dict[str, float] | None:
    """None if the peer is not installed."""
    python, code = ENGINES[name]
    if not Path(python).exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-c", COMMON + code, folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    found = {name: result for name in ENGINES if (result := run(name))}
    ours = found["DML"]
    print(f"{UPDATES} updates of {MEGABYTES} MB")
    for name, result in found.items():
        times, memory = result["seconds"] / ours["seconds"], result["megabytes"] / MEGABYTES
        print(f"  {name:<12}{result['seconds']:>7.2f} s  {times:>5.1f} x ours   {memory:>5.1f} x the model in memory")
    kept = ROOT / "bench" / "results" / "averaging.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"date": f"{date.today()}", "cores": os.cpu_count(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
