"""People and their API keys."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, email: str | None) -> "User":
        return self.get(email=(email or "").strip().lower())


class User(AbstractBaseUser, PermissionsMixin):
    """A person, known by e-mail address (kept in lower case). One may be customer and provider at once."""

    email = models.EmailField("e-mail", unique=True, error_messages={"unique": "This e-mail address is taken."})
    confirmed = models.DateTimeField(
        "e-mail confirmed",
        null=True,
        blank=True,
        help_text="Since when we know that it is theirs; links are mailed to no other",
    )
    is_customer = models.BooleanField("customer", default=False)
    is_provider = models.BooleanField("provider", default=False)
    is_staff = models.BooleanField("admin", default=False)
    is_active = models.BooleanField("active", default=True)
    date_joined = models.DateTimeField("joined", default=timezone.now)

    objects = UserManager()

    EMAIL_FIELD = USERNAME_FIELD = "email"
    REQUIRED_FIELDS: list[str] = []

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_ignores_case")]

    def __str__(self) -> str:
        return self.email


class Wallet(models.Model):
    """An account on the chain whose owner has signed that it is this person's. It logs them in."""

    user = models.ForeignKey(User, models.CASCADE, related_name="wallets")
    address = models.CharField(max_length=42, unique=True)
    linked = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["linked"]

    def __str__(self) -> str:
        return self.address


def digest(key: str) -> str:
    """SHA-256 of an API key. Enough here, unlike for passwords: a key holds 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKey(models.Model):
    """A key of a worker, or of a program that acts for a person. Shown once; only its hash is kept. What it opens is in `use`: a
    worker's opens nothing of the REST API, a program's no worker's socket."""

    class Use(models.TextChoices):
        WORKER = "worker", "work: a provider's worker"
        CLIENT = "client", "order: the REST API"
        READ = "read", "read: the REST API, nothing changed"

    PROGRAMS = (Use.CLIENT, Use.READ)
    """For the REST API."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=60, default="worker")
    use = models.CharField(max_length=6, choices=Use.choices, default=Use.WORKER)
    prefix = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True)
    created = models.DateTimeField(auto_now_add=True)
    revoked = models.DateTimeField(null=True, blank=True)
    last_used = models.DateTimeField(null=True, blank=True, help_text="To the minute")

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"

    @classmethod
    def issue(cls, user: User, name: str = "worker", use: str = Use.WORKER) -> str:
        """Make a key and return its text, which nobody can read again."""
        key = "dml_" + secrets.token_urlsafe(32)
        cls.objects.create(user=user, name=name, use=use, prefix=key[:10], digest=digest(key))
        return key

    @classmethod
    def valid(cls, key: str, *uses: str) -> "models.QuerySet[ApiKey]":
        """The row of a key for one of these uses (a worker's, if none is named) that was not revoked and whose owner may log in; none for
        anything else."""
        return cls._in_force(*uses or (cls.Use.WORKER,)).filter(digest=digest(key))

    @classmethod
    def all_valid(cls, keys: Collection[str]) -> set[str]:
        """Those of a worker's keys that `valid` would know, which counts as their use."""
        named = {digest(key): key for key in keys}
        rows = cls._in_force(cls.Use.WORKER).filter(digest__in=named)
        cls.touch(*rows)
        return {named[row.digest] for row in rows}

    @classmethod
    def _in_force(cls, *uses: str) -> "models.QuerySet[ApiKey]":
        return cls.objects.filter(use__in=uses, revoked=None, user__is_active=True)

    @staticmethod
    def touch(*keys: "ApiKey") -> None:
        """They were shown just now; written down once a minute, since programs show their keys all the time."""
        now = timezone.now()
        old = [key.pk for key in keys if key.last_used is None or now - key.last_used > timedelta(minutes=1)]
        if old:
            ApiKey.objects.filter(pk__in=old).update(last_used=now)
