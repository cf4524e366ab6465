"""Energy from counters in a made-up sysfs, and from a made-up NVML: what can't be read is not known."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dmlworker.energy import Meter, Used, nvml


def zone(powercap: Path, name: str, called: str, microjoules: int, most: int = 1_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(exist_ok=True)
    for file, value in {"name": called, "energy_uj": microjoules, "max_energy_range_uj": most}.items():
        (folder / file).write_text(f"{value}\n")
    return folder


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    for name, called in {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}.items():
        zone(tmp_path, name, called, 100_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 100_000)
    meter = Meter(tmp_path)
    for name, called in {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}.items():
        zone(tmp_path, name, called, 300_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 900_000)
    assert meter.used().joules == pytest.approx(0.4)


def test_a_counter_that_goes_round_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    meter = Meter(tmp_path)
    zone(tmp_path, "intel-rapl:0", "package-0", 50_000)
    meter.look()
    zone(tmp_path, "intel-rapl:0", "package-0", 60_000)
    assert meter.used().joules == pytest.approx(0.16)


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    (zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj").unlink()
    zone(tmp_path, "intel-rapl:1", "package-1", 1)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("nothing")
    assert Meter(tmp_path).used() == Meter(tmp_path / "none").used() == Used(0.0, 0.0)


class Library:
    """As pynvml: two devices, one without a counter of energy."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.millijoules, self.percent = 5000, 80

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        if device:
            raise self.NVMLError
        return self.millijoules

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=0 if device else self.percent)


def test_gpus_are_counted_and_the_busiest_one_tells(tmp_path: Path) -> None:
    library = Library()
    meter = Meter(tmp_path, library)
    library.millijoules, library.percent = 8000, 40
    assert meter.used() == Used(pytest.approx(3.0), pytest.approx(0.6))


def test_without_the_library_there_is_none() -> None:
    assert nvml() is None or nvml().nvmlDeviceGetCount() >= 0
