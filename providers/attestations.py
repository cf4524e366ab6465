"""Workers that prove what they run in: every change of an attestation, and of the list of what is allowed, is a verb here."""

import secrets
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from dmlsite import jobs
from dmlsite.errors import Conflict, Invalid, Missing
from dmlworker import protocol
from dmlworker.snp import AttestationError
from providers import snp
from providers.models import Attestation, Connection, Measurement, MeasurementEvent, Provider, Standing

State = Attestation.State
FRESH = timedelta(minutes=5)
"""A nonce has to come back within so long, in a report that was made for it."""
FORGOTTEN = timedelta(days=1)
"""Nonces that never came back are kept so long."""
UNDECIDED = "The platform was interrupted while it looked at this."
"""Until it is decided, and for good if that never comes."""
KEPT = timedelta(days=30)
"""And what was refused, for its provider to ask."""


# --- What workers present ---------------------------------------------------------------------------------------------
def ask(provider: Provider) -> Attestation:
    """A nonce for one report. Raises Conflict for whoever could not work anyway."""
    if provider.standing not in (Standing.ACTIVE, Standing.EXITING):
        raise Conflict(f"Only an active provider can attest: you are {provider.get_standing_display()}.")
    return Attestation.objects.create(provider=provider, nonce=secrets.token_hex(32))


def present(provider: Provider, pk: UUID, report: bytes, certificate: bytes, session: str) -> Attestation:
    """What a worker answers to its nonce; used up at once, whatever comes out. session: see `protocol.attestation_data`. Raises Missing,
    Conflict if the nonce was used or is too old, Invalid with the reason if the report proves nothing."""
    found = Attestation.objects.select_related("provider").filter(provider=provider, pk=pk).first()
    if found is None:
        raise Missing("You asked for no such attestation.")
    evidence = {"presented": timezone.now(), "report": report, "certificate": certificate, "session": session}
    evidence |= {"state": State.REFUSED, "reason": UNDECIDED}
    fresh = Attestation.objects.filter(pk=pk, presented=None, asked__gt=timezone.now() - FRESH)
    if not fresh.update(**evidence):
        raise Conflict("This nonce was used before, or is too old. Ask for a new one.")
    try:
        _accept(found, _verified(found, report, certificate, session))
    except AttestationError as error:
        Attestation.objects.filter(pk=pk).update(reason=str(error))
        raise Invalid(str(error)) from error
    found.refresh_from_db()
    return found


def _verified(asked: Attestation, report: bytes, certificate: bytes, session: str) -> snp.Proven:
    """Raises AttestationError."""
    return snp.verify(
        report,
        certificate,
        report_data=protocol.attestation_data(site(), asked.nonce, asked.provider.wallet or "", session),
        allowed=set(Measurement.objects.filter(allowed=True).values_list("value", flat=True)),
        now=timezone.now(),
        minimum=settings.SNP_MINIMUM_TCB,
        folder=settings.AMD_CERTIFICATES,
    )


def _accept(asked: Attestation, proven: snp.Proven) -> None:
    told = {"product": proven.product, "chip": proven.chip, "tcb": ".".join(map(str, proven.tcb))}
    ends = min(timezone.now() + timedelta(seconds=settings.ATTESTATION_SECONDS), proven.ends)
    measurement = Measurement.objects.get(value=proven.measurement)
    with transaction.atomic():
        rows = Attestation.objects.filter(pk=asked.pk)
        rows.update(state=State.VALID, reason="", expires=ends, measurement=measurement, **told)
        jobs.enqueue("training.tasks.start_waiting")


def site() -> str:
    """How reports name this platform, so that one made for another is worth nothing here."""
    return urlsplit(settings.SITE_URL).netloc


def forget() -> None:
    """Nonces that never came back, and what was refused long ago."""
    Attestation.objects.filter(presented=None, asked__lt=timezone.now() - FORGOTTEN).delete()
    Attestation.objects.filter(state=State.REFUSED, asked__lt=timezone.now() - KEPT).delete()


# --- What is known of them --------------------------------------------------------------------------------------------
def current(provider: Provider) -> Attestation | None:
    """The one that holds longest."""
    return provider.attestations.good().select_related("measurement").order_by("-expires").first()


def is_attested(channel: str) -> bool:
    """Whether the worker on this connection is, now."""
    return Connection.objects.online(attested=True).filter(channel=channel).exists()


def shows(provider: Provider, secret: str) -> bool:
    """Whether whoever shows this is an attested worker of the provider, now."""
    theirs = Attestation.objects.good().filter(provider=provider, session=protocol.session_of(secret))
    return theirs.exists()


# --- What admins allow ------------------------------------------------------------------------------------------------
def allow(value: str, title: str, reason: str, actor: str) -> Measurement:
    """A new measurement on the list."""
    with transaction.atomic():
        found = Measurement.objects.create(value=value, title=title)
        MeasurementEvent.objects.create(measurement=found, allowed=True, reason=reason, actor=actor)
    return found


def change(measurement: Measurement, allowed: bool, reason: str, actor: str) -> None:
    """Take a measurement from the list, or put it back. What was attested by it stops to count at once, or does again until it expires."""
    with transaction.atomic():
        if not Measurement.objects.filter(pk=measurement.pk, allowed=not allowed).update(allowed=allowed):
            raise Conflict("It is so already.")
        MeasurementEvent.objects.create(measurement=measurement, allowed=allowed, reason=reason, actor=actor)
        jobs.enqueue("training.tasks.start_waiting")
