"""The worker's Dockerfile names what the package has."""

import tomllib
from pathlib import Path

from dmlworker.__main__ import parser

FOLDER = Path(__file__).resolve().parent.parent
LINES = (FOLDER / "Dockerfile").read_text().splitlines()
PACKAGE = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]


def test_the_image_starts_the_packages_own_command():
    assert LINES[-1] == f'ENTRYPOINT ["{next(iter(PACKAGE["scripts"]))}"]'
    assert f"FROM python:{PACKAGE['requires-python'].removeprefix('>=')}-slim" in LINES


def test_the_volume_is_where_the_worker_keeps_its_data(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/worker"))
    told = parser().parse_args(["--server", "https://dml.example", "--key", "dml_x"])
    volume = next(line for line in LINES if "--volume" in line).split("--volume dml-worker:")[1].split()[0]
    assert Path(volume) in told.cache.parents
    assert f"RUN mkdir {volume}" in LINES
