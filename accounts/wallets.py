"""Sign-In with Ethereum (EIP-4361): a wallet signs a text of ours, which links it to an account or logs its owner in.

The text is made here, kept in the session, and signed as it stands; so nothing that a browser says has to be parsed. It names
our site, so that a wallet warns whoever is asked for it by another one. Contract wallets (EIP-1271) are not supported.
"""

import secrets
from datetime import timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from accounts.models import User, Wallet
from contracts.chain import ChainError, to_checksum
from contracts.keys import signer
from dmlsite import jobs
from dmlsite.errors import Conflict, Invalid
from dmlsite.mail import message

KEY = "wallet"
MINUTES = 5
"""A text is to be signed within this time."""
STATEMENTS = {"login": "Log in to DML.", "link": "Link this wallet to my DML account."}


def ask(session: SessionBase, address: str, purpose: str) -> str:
    """The text for a wallet to sign. Raises Invalid if there is no such address."""
    try:
        address = to_checksum(address)
    except ChainError:
        raise Invalid("This is no address of a wallet.") from None
    now = timezone.now().replace(microsecond=0)
    until = now + timedelta(minutes=MINUTES)
    text = statement(address, STATEMENTS[purpose], secrets.token_hex(8), now.isoformat(), until.isoformat())
    session[KEY] = {"text": text, "address": address, "purpose": purpose, "until": until.timestamp()}
    return text


def statement(address: str, says: str, nonce: str, issued: str, expires: str) -> str:
    """As EIP-4361 words it."""
    return f"""{urlsplit(settings.SITE_URL).netloc} wants you to sign in with your Ethereum account:
{address}

{says}

URI: {settings.SITE_URL}
Version: 1
Chain ID: {settings.CHAIN_ID}
Nonce: {nonce}
Issued At: {issued}
Expiration Time: {expires}"""


def proven(session: SessionBase, signature: str, purpose: str) -> str:
    """The address whose owner signed what was asked in this session; a text is good for one try. Raises Invalid."""
    asked = session.pop(KEY, None)
    if not asked or asked["purpose"] != purpose or asked["until"] < timezone.now().timestamp():
        raise Invalid("This took too long, or was done in another window. Please try again.")
    if signer(asked["text"], signature) != asked["address"]:
        raise Invalid("The signature is not that wallet's. Please try again.")
    return str(asked["address"])


def link(user: User, address: str) -> None:
    """The account's owner is told by mail. Raises Conflict if the wallet is somebody else's."""
    try:
        with transaction.atomic():
            Wallet.objects.create(user=user, address=address)
            jobs.enqueue("accounts.tasks.tell_linked", user.pk, address)
    except IntegrityError:
        if not Wallet.objects.filter(user=user, address=address).exists():
            raise Conflict("This wallet is linked to another account.") from None


def unlink_all(user: User) -> int:
    """How many there were: after a new password by mail, whoever had the account for a while is out."""
    return user.wallets.all().delete()[0]


def send_linked(user: User, address: str) -> None:
    context = {"email": user.email, "address": address, "reset": settings.SITE_URL + reverse("accounts:reset")}
    text = render_to_string("accounts/linked_mail.txt", context)
    message("A wallet was linked to your account", text, user.email).send()


def owner(address: str) -> User:
    """Whom a wallet logs in. Raises Invalid."""
    found = Wallet.objects.filter(address=address, user__is_active=True).select_related("user").first()
    if found is None:
        raise Invalid(
            "No account knows this wallet. Log in with your password, and link the wallet on your account page."
        )
    return found.user
