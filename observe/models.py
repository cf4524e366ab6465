"""From where admins acted: an address beside each line of Django's audit log, which has no column for one."""

from django.contrib.admin.models import LogEntry
from django.db import models


class Origin(models.Model):
    entry = models.OneToOneField(LogEntry, models.CASCADE, primary_key=True, related_name="origin")
    address = models.GenericIPAddressField()

    def __str__(self) -> str:
        return self.address
