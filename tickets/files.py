"""Files that nothing names any more. A row says so, in the transaction that lets go of a file: its bytes can't be brought back. When that
has committed a job removes them, and goes on trying for as long as the storage refuses."""

import logging
from collections.abc import Iterable

from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from dmlsite import jobs
from tickets.models import Artifact, Dataset, Leftover, OwnModel, UploadPart

log = logging.getLogger(__name__)


def let_go(names: Iterable[str]) -> None:
    """Have files removed, by their names in the storage."""
    found = [Leftover(name=name) for name in names if name]
    if found:
        Leftover.objects.bulk_create(found, ignore_conflicts=True)
        jobs.enqueue("tickets.tasks.remove_files")


def keep(name: str) -> None:
    """A file is about to be stored under this name again. Waits for the job if that is removing the old one just now."""
    Leftover.objects.filter(name=name).delete()


def link(name: str, called: str) -> str:
    """Where a file is fetched from the object store itself, for a while, to be saved as it is called. Empty on a disk."""
    attached = getattr(default_storage, "attached", None)
    return attached(name, called) if attached else ""


def due() -> QuerySet[Leftover]:
    return Leftover.objects.filter(due__lte=timezone.now()).order_by("due")


def remove(left: Leftover) -> None:
    """Remove a file, or say why it is still there and when it is tried again."""
    try:
        _remove(left)
    except Exception as error:  # what a storage raises is its own
        log.exception("%s is not removed", left.name)
        when = timezone.now() + jobs.backoff(left.tries + 1)
        Leftover.objects.filter(pk=left.pk).update(error=str(error), tries=F("tries") + 1, due=when)


def _remove(left: Leftover) -> None:
    """The row is locked meanwhile, for `keep`: nobody else waits for it."""
    with transaction.atomic():
        if Leftover.objects.select_for_update().filter(pk=left.pk).first():
            if not any(
                model.objects.filter(file=left.name).exists() for model in (Dataset, UploadPart, Artifact, OwnModel)
            ):
                default_storage.delete(left.name)
            left.delete()
