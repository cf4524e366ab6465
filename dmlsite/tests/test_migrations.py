"""Migrations run while the code of the release before still works: none takes away what that code reads, or asks for what it does not write.

What is to go, goes in two releases: first nothing uses it any more, then a migration drops it, which is named in `IN_TURN`.
"""

import re

import pytest
from django.apps import apps
from django.db import models
from django.db.migrations import operations as ops
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

BASELINE = {"accounts": 3, "ledger": 4, "observe": 0, "providers": 5, "tickets": 15, "training": 17}
"""The last migration of each app before there was anything to upgrade."""
IN_TURN: dict[str, str] = {}
"""Migrations that take something away, "app.name", and since which release no code uses it."""
GONE = (ops.RemoveField, ops.DeleteModel, ops.RenameField, ops.RenameModel, ops.AlterModelTable)
SQL = re.compile(r"\b(drop\s+(table|column)|rename\s+(to|column)|set\s+not\s+null)\b", re.IGNORECASE)


def refusals(operation, before: ProjectState, app: str) -> list[str]:
    """Why the code of the release before would break."""
    if isinstance(operation, GONE):
        return [f"{operation.describe()}: the old code still uses it"]
    if isinstance(operation, ops.RunSQL):
        return [f"{found[0]} in SQL" for found in [SQL.search(str(operation.sql))] if found]
    if isinstance(operation, ops.AddField) and unfilled(operation.field):
        return [f"{operation.describe()}: the old code does not write it; it may be null, or needs a db_default"]
    if isinstance(operation, ops.AlterField):
        old = before.models[app, operation.model_name_lower].fields[operation.name]
        if old.null and unfilled(operation.field):
            return [f"{operation.describe()}: the old code still writes null"]
        if old.get_internal_type() != operation.field.get_internal_type():
            return [f"{operation.describe()}: the old code reads another type"]
    return []


def unfilled(field: models.Field) -> bool:
    """A column that a row written without it can't have: Django drops a Python default from the table again."""
    return not (field.many_to_many or field.null or field.db_default is not models.NOT_PROVIDED)


def later_ones():
    """Ours that are newer than the baseline: (app, name, operations with the state before each)."""
    loader = MigrationLoader(None)
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        if app in BASELINE and int(name[:4]) > BASELINE[app]:
            state = loader.project_state([parent for parent in migration.dependencies if parent[0] != "__setting__"])
            yield app, name, migration, state


def test_no_later_migration_breaks_the_release_before():
    found = []
    for app, name, migration, state in later_ones():
        for operation in migration.operations:
            if f"{app}.{name}" not in IN_TURN:
                found += [f"{app}.{name}: {why}" for why in refusals(operation, state, app)]
            operation.state_forwards(app, state)
    assert found == []


def test_every_app_of_ours_has_a_baseline():
    ours = {config.label for config in apps.get_app_configs() if (config.path + "/").count("/site-packages/") == 0}
    assert {label for label in ours if MigrationLoader(None).migrated_apps & {label}} == set(BASELINE)


@pytest.fixture
def state():
    return MigrationLoader(None).project_state([("tickets", "0015_search")])


@pytest.mark.parametrize(
    "operation",
    [
        ops.RemoveField("ticket", "outcome"),
        ops.DeleteModel("Leftover"),
        ops.RenameField("ticket", "outcome", "end"),
        ops.RenameModel("Leftover", "Rest"),
        ops.AlterModelTable("Leftover", "rests"),
        ops.AddField("ticket", "colour", models.CharField(max_length=9)),
        ops.AddField("ticket", "colour", models.CharField(max_length=9, default="red")),
        ops.AlterField("ticket", "upload_by", models.DateTimeField()),
        ops.AlterField("ticket", "outcome", models.IntegerField()),
        ops.RunSQL("alter table tickets_ticket drop column outcome"),
    ],
    ids=lambda operation: operation.describe(),
)
def test_what_the_old_code_needs_is_kept(operation, state):
    assert refusals(operation, state, "tickets")


@pytest.mark.parametrize(
    "operation",
    [
        ops.AddField("ticket", "colour", models.CharField(max_length=9, null=True)),
        ops.AddField("ticket", "colour", models.CharField(max_length=9, db_default="red")),
        ops.CreateModel("Colour", [("id", models.BigAutoField(primary_key=True)), ("name", models.TextField())]),
        ops.RunSQL("create index colours on tickets_ticket (outcome)"),
    ],
    ids=lambda operation: operation.describe(),
)
def test_what_is_added_may_be_added(operation, state):
    assert refusals(operation, state, "tickets") == []
