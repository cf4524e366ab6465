"""What a training took: energy in joules, and how busy the GPUs were. A report, as good as this computer's counters.

Read from Linux' RAPL counters (Intel and AMD processors; root may read them, others where the owner allows it) and, with the
package nvidia-ml-py and where the worker computes on a GPU, from NVIDIA's. They count for the whole machine. codecarbon would read
the same counters, but brings pandas and guesses where there are none; here, what can't be read is not known.
"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


def nvml() -> Any:
    """NVIDIA's library, ready to be asked, or None."""
    with contextlib.suppress(Exception):  # not installed, no driver, no GPU: all the same to us
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]

        pynvml.nvmlInit()
        return pynvml
    return None


@dataclass
class Used:
    """joules: 0 for not known. gpu: the share of the time, 0 to 1."""

    joules: float = 0.0
    gpu: float = 0.0


@dataclass
class Meter:
    """Counts from when it is made until the last `look`. gpus: NVIDIA's library, if it is to be asked."""

    powercap: Path = POWERCAP
    gpus: Any = None
    _last: dict[str, float] = field(default_factory=dict)
    _joules: float = 0.0
    _busy: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Adds up what the counters say. To be called often: they go round within minutes."""
        counters = _packages(self.powercap) | _gpus(self.gpus)
        for name, (joules, most) in counters.items():
            before = self._last.get(name, joules)
            self._joules += joules - before + (most if joules < before else 0.0)
            self._last[name] = joules
        if busy := _utilization(self.gpus):
            self._busy.append(max(busy))

    def used(self) -> Used:
        self.look()
        return Used(self._joules, sum(self._busy) / len(self._busy) if self._busy else 0.0)


def _packages(powercap: Path) -> dict[str, tuple[float, float]]:
    """Each processor's counter in joules, and where it begins anew. Its parts are in it, and the platform's own holds it."""
    found = {}
    for zone in powercap.glob("intel-rapl:*"):
        with contextlib.suppress(OSError, ValueError):
            if (zone / "name").read_text().startswith("package-"):
                values = [int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")]
                found[zone.name] = (values[0] / 1e6, values[1] / 1e6)
    return found


def _gpus(library: Any) -> dict[str, tuple[float, float]]:
    found = {}
    for number in range(library.nvmlDeviceGetCount() if library else 0):
        with contextlib.suppress(library.NVMLError):  # old ones have no such counter
            device = library.nvmlDeviceGetHandleByIndex(number)
            found[f"gpu {number}"] = (library.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3, 0.0)
    return found


def _utilization(library: Any) -> list[float]:
    found = []
    for number in range(library.nvmlDeviceGetCount() if library else 0):
        with contextlib.suppress(library.NVMLError):
            device = library.nvmlDeviceGetHandleByIndex(number)
            found.append(library.nvmlDeviceGetUtilizationRates(device).gpu / 100)
    return found
