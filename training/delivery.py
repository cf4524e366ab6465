"""What a customer gets beside the model: other formats, and a program that reads their file and prints what the model says."""

import json
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

import dmlworker
from dmlsite import jobs, live
from dmlworker import exports
from dmlworker.datasets.dataset import MISSING
from tickets import mail
from tickets.models import Artifact, Status
from training import records
from training.models import Run
from training.raw import encoder_of

KERAS = "model.keras"
MODEL = (KERAS, "model.json", "model.weights.h5")
PROGRAM = ("predict.py", "rows.py", "preprocessing.json", "labels.txt", "requirements.txt")
DOCUMENTS = ("model-card.md", "model-card.json", "curves.png", "receipt.json")
GROUPS = {
    "The model": MODEL,
    "The same in other formats": tuple(exports.FILES.values()),
    "To use it": PROGRAM,
    "Documents": DOCUMENTS,
}
FORMATS = timedelta(hours=1)
"""After the end of the training, other formats are waited for, before the card is written without them."""
_SCRIPTS = Path(dmlworker.__file__).parent / "delivered"
_KINDS = {"number", "category", "date", "text", "tokens"}
"""Of columns, that rows.py can read."""


def grouped(files: dict[str, Artifact]) -> list[tuple[str, list[Artifact]]]:
    """By GROUPS, in their order; what none of them names is among the last."""
    found = {title: [files[name] for name in names if name in files] for title, names in GROUPS.items()}
    known = {name for names in GROUPS.values() for name in names}
    found["Documents"] += [file for name, file in files.items() if name not in known]
    return [(title, group) for title, group in found.items() if group]


def write(run: Run, folder: Path) -> list[Path]:
    """Writes PROGRAM into `folder`, of it what there is for this kind of data; gives the paths."""
    files = {"preprocessing.json": json.dumps(about(run), indent=1, ensure_ascii=False) + "\n"}
    if run.classes:
        files["labels.txt"] = "".join(f"{' '.join(str(label).split())}\n" for label in run.classes)
    if readable(run):
        files["requirements.txt"] = requirements(run.facts["kind"] == "images")
        files |= {name: (_SCRIPTS / name).read_text() for name in ("predict.py", "rows.py")}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def readable(run: Run) -> bool:
    """Whether rows.py reads such data: tables, windows of their rows, images, and arrays as .npy."""
    if encoder := encoder_of(run):
        return {feature.kind for feature in encoder.features} <= _KINDS
    return run.facts["kind"] in ("images", "npz") or bool(run.facts.get("features"))


def about(run: Run) -> dict[str, Any]:
    """What rows.py has to know: `preprocessing.json`."""
    encoder = encoder_of(run)
    columns: list[dict[str, Any]] = [{"name": name} for name in run.facts.get("features") or []]
    if encoder:
        columns = [each | {"input": name} for each, name in zip(encoder.json(), encoder.inputs, strict=True)]
    return {
        "task": run.ticket.task,
        "labels": [str(label) for label in run.classes],
        "kind": run.facts["kind"],
        "shape": run.facts["sample_shape"],
        "columns": columns,
        "window": run.facts.get("window", 0),
        "missing": sorted(MISSING),
    }


def requirements(images: bool) -> str:
    """For predict.py: the versions that the model was made with."""
    lines = [f"{name}=={version(name)}" for name in ("keras", "numpy", *(["pillow"] if images else []))]
    found, light = _tensorflow(), [f"{name}=={version(name)}" for name in ("onnxruntime", "ai-edge-litert")]
    lines.append(f"tensorflow-cpu=={found}; platform_machine == 'x86_64' and sys_platform != 'darwin'")
    lines.append(f"tensorflow=={found}; platform_machine != 'x86_64' or sys_platform == 'darwin'")
    lines.append(f"# In place of Keras and TensorFlow, for model.onnx: {light[0]}; for model.tflite: {light[1]}")
    return "\n".join(lines) + "\n"


def _tensorflow() -> str:
    try:
        return version("tensorflow-cpu")
    except PackageNotFoundError:
        return version("tensorflow")


# --- One after the other ----------------------------------------------------------------------------------------------
def unconverted() -> QuerySet[Run]:
    """Finished runs whose model is to come in other formats, too. Nothing is made for a closed account."""
    return _finished().filter(converted=None)


def undelivered() -> QuerySet[Run]:
    """Paid for, and the model card is still to be written, and the mail."""
    return _finished().filter(delivered=None, ticket__status=Status.SETTLED)


def _finished() -> QuerySet[Run]:
    return Run.objects.filter(state=Run.State.DONE, ticket__customer__is_active=True).select_related("ticket__customer")


def missing(run: Run) -> list[str]:
    """The formats that this platform makes, and that are not stored."""
    names = set(run.ticket.artifacts.values_list("name", flat=True))
    return [name for name, file in exports.FILES.items() if name in settings.EXPORT_FORMATS and file not in names]


def converted(run: Run, left_out: Mapping[str, str]) -> None:
    """The other formats are there, but for these, each with the reason. The caller has claimed the run's formats."""
    with transaction.atomic():
        records.tell_left_out(run.ticket, left_out)
        Run.objects.filter(pk=run.pk, converted=None).update(converted=timezone.now())
        jobs.enqueue("training.tasks.deliver", str(run.pk))
        live.changed(live.ticket_group(run.ticket_id))


def formats_over(run: Run) -> bool:
    """Whether no other format is to be waited for; the caller has claimed them. Those that are not there after FORMATS are given up."""
    if run.converted is None and run.finished and run.finished < timezone.now() - FORMATS:
        converted(run, dict.fromkeys(missing(run), "it was not made in time"))
        return True
    return run.converted is not None


def delivered(run: Run) -> None:
    """The customer has all files: tell them, once."""
    with transaction.atomic():
        if Run.objects.filter(pk=run.pk, delivered=None).update(delivered=timezone.now()):
            mail.queue(run.ticket, "done")
            live.changed(live.ticket_group(run.ticket_id))
