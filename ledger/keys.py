"""Keystore files of a development installation. In production an operator makes them; nothing here is used."""

import secrets

from django.conf import settings

from contracts.keys import make_keystore

ROLES = ("admin", "quoter", "settler", "guardian")
CHEAP = 2
"""scrypt iterations: these keys guard test coins."""


def make_development_keys() -> tuple[str, ...]:
    """Make what is missing of the passphrase and the four keystores; returns the roles."""
    secret = settings.KEY_PASSPHRASE_FILE
    if not secret.exists():
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24))
    for role in ROLES:
        path = getattr(settings, f"{role.upper()}_KEYSTORE")
        if not path.exists():
            make_keystore(path, secret.read_text(), iterations=CHEAP)
    return ROLES
