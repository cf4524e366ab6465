"""What deploy/ says: every setting that it names is one, and each part of it can be read."""

import re

import pytest
import yaml

from scripts.settings_reference import MEANINGS, ROOT

KNOWN = {name for names in MEANINGS.values() for name in names}
DEPLOY = ROOT / "deploy"
OTHERS = {"FORWARDED_ALLOW_IPS"}
"""uvicorn's."""


def documents(*patterns):
    return [
        one
        for pattern in patterns
        for file in sorted(DEPLOY.glob(pattern))
        for one in yaml.safe_load_all(file.read_text())
    ]


def named():
    compose = documents("compose.yaml")[0]
    yield from (
        name for service in compose["services"].values() if "build" in service for name in service["environment"]
    )
    for one in documents("kubernetes/*.yaml"):
        if one["kind"] in ("ConfigMap", "Secret"):
            yield from {**one.get("data", {}), **one.get("stringData", {})}
    yield from re.findall("^([A-Z_]+)=", (DEPLOY / "settings.env.example").read_text(), re.M)


def test_every_setting_is_one_that_is_read():
    names = set(named())
    assert len(names) > 20
    assert {name for name in names if name not in KNOWN | OTHERS and name.removesuffix("_FILE") not in KNOWN} == set()


def test_every_secret_of_the_compose_file_is_given_to_its_service():
    compose = documents("compose.yaml")[0]
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        for value in service.get("environment", {}).values():
            if str(value).startswith("/run/secrets/"):
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_every_deployment_selects_its_own_pods():
    found = [one for one in documents("kubernetes/*.yaml") if one["kind"] == "Deployment"]
    assert {one["metadata"]["name"] for one in found} == {"web", "jobs", "compute", "scanner"}
    for one in found:
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("systemd/*.service")), ids=lambda file: file.name)
def test_units_start_what_is_there(unit):
    [start] = re.findall(r"^ExecStart=/opt/dml/\.venv/bin/(.*)$", unit.read_text(), re.M)
    program, *rest = start.split()
    assert program in ("python", "uvicorn")
    if program == "python":
        assert (ROOT / rest[0]).exists()
