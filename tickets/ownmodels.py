"""Models of customers' own, which come with an order (dmlworker/ownmodel.py)."""

import logging
from typing import Any

from django.core.files.base import ContentFile, File

from dmlsite.errors import Invalid
from dmlworker import models, ownmodel
from dmlworker.loader import ModelRefused
from tickets.models import OwnModel

log = logging.getLogger(__name__)
OWN_MODELS = "20/10m"
"""How often one person may have a model read."""


def read(file: File, weights: File | None) -> tuple[OwnModel, bytes | None]:
    """What is in a customer's file, not saved yet, and its start weights. Takes about ten seconds. Raises Invalid, with the reason."""
    try:
        found = ownmodel.read(file, file.name or "", weights)
    except ModelRefused as error:
        raise Invalid(f"Your model can't be taken: {error}", "model_file") from None
    if not found.alone:
        log.warning("This kernel does not let a process leave the network: a customer's model was read within it.")
    spec = models.spec_bytes(found.spec).decode()
    name = (file.name or "model")[-OwnModel.NAME_LENGTH :]
    return OwnModel(name=name, spec=spec, parameters=found.parameters, notes="; ".join(found.notes)), found.weights


def keep(own: OwnModel, weights: bytes | None) -> None:
    """Save it with its ticket; called in a transaction, after the ticket was saved."""
    if weights is not None:
        own.file.save(f"{own.ticket_id}.safetensors", ContentFile(weights), save=False)
    own.save()


def told(own: OwnModel) -> dict[str, Any]:
    """What a model is, for people."""
    layers = models.spec_from_bytes(own.spec.encode())["config"]["layers"]
    shape = next(layer for layer in layers if layer["class_name"] == "InputLayer")["config"]["batch_shape"][1:]
    return {"own": own, "shape": shape, "layers": len(layers)}
