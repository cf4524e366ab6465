"""Models of customers' own, which come with an order (dmlworker/ownmodel.py)."""

import logging

from django.core.files.base import ContentFile, File

from dmlsite.errors import Invalid
from dmlworker import flops, models, ownmodel
from dmlworker.loader import ModelRefused
from dmlworker.ownmodel import Own
from tickets.models import OwnModel

log = logging.getLogger(__name__)
OWN_MODELS = "20/10m"
"""How often one person may have a model read."""


def read(file: File, weights: File | None) -> tuple[OwnModel, Own]:
    """What is in a customer's file, as it will be saved and as it was read. Takes about ten seconds. Raises Invalid, with the reason."""
    try:
        found = ownmodel.read(file, file.name or "", weights)
    except ModelRefused as error:
        raise Invalid(f"Your model can't be taken: {error}", "model_file") from None
    if not found.alone:
        log.warning("This kernel does not let a process leave the network: a customer's model was read within it.")
    spec = models.spec_bytes(found.spec).decode()
    name = (file.name or "model")[-OwnModel.NAME_LENGTH :]
    return OwnModel(name=name, spec=spec, parameters=found.parameters, notes="; ".join(found.notes)), found


def keep(own: OwnModel, weights: bytes | None) -> None:
    """Save it with its ticket; called in a transaction, after the ticket was saved."""
    if weights is not None:
        own.file.save(f"{own.ticket_id}.safetensors", ContentFile(weights), save=False)
    own.save()


def check(found: Own, shape: str, classes: str) -> None:
    """Compare it with what the check of a data file found, as far as that is known: numbers with commas, or nothing. Raises Invalid."""
    try:
        if shape:
            ownmodel.check_shape(ownmodel.input_shape(found.spec), tuple(map(int, shape.split(","))))
        if classes:
            ownmodel.check_outputs(found.outputs, int(classes))
    except ModelRefused as error:
        raise Invalid(str(error)) from None
    except ValueError:
        raise Invalid("This is no shape of data.") from None


def operations(own: OwnModel) -> int:
    """Of training on one sample, preprocessing included; 0 if it can't be told."""
    try:
        return ownmodel.operations(models.spec_from_bytes(own.spec.encode()))
    except flops.Unknown:
        return 0
