"""What a customer gets beside the model: other formats, and a program that reads their file and prints what the model says."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dmlworker
from dmlworker import exports
from dmlworker.datasets.dataset import MISSING
from tickets.models import Artifact
from training.models import Run
from training.raw import encoder_of

MODEL = ("model.keras", "model.json", "model.weights.h5")
PROGRAM = ("predict.py", "rows.py", "preprocessing.json", "labels.txt", "requirements.txt")
DOCUMENTS = ("model-card.md", "model-card.json", "curves.png", "receipt.json")
GROUPS = {
    "The model": MODEL,
    "The same in other formats": tuple(exports.FILES.values()),
    "To use it": PROGRAM,
    "Documents": DOCUMENTS,
}
_SCRIPTS = Path(dmlworker.__file__).parent / "delivered"
_KINDS = {"number", "category", "date"}
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
    """Whether rows.py reads such data: tables, images, and arrays as .npy."""
    encoder, dimensions = encoder_of(run), len(run.facts["sample_shape"])
    if encoder:
        return {feature.kind for feature in encoder.features} <= _KINDS
    return run.facts["kind"] in ("images", "npz") or dimensions == 1


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
