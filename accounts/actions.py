"""Every change of an account is a verb here, called alike by page and API."""

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.authtoken.models import Token

from accounts import confirmation
from accounts.models import ApiKey, User
from dmlsite.errors import Conflict, Invalid, Missing

SCOPES = {"order": ApiKey.Use.CLIENT, "read": ApiKey.Use.READ}
"""What a program's key may be made for: everything but the account itself, or only to look."""

KEYS = 50
"""Keys that one person may have at once, workers' among them."""

KINDS = {"customer": "is_customer", "provider": "is_provider"}
"""What a person registers as, and the field that says so. One may become the other as well later."""


def register(email: str, password: str, kind: str) -> User:
    """Open an account. Raises Invalid, with the reason, for a bad or taken e-mail, a weak password, an unknown kind."""
    if kind not in KINDS:
        raise Invalid("Please say whether you are a customer or a provider.")
    email = check_email(email)
    check_password(password, email)
    try:
        with transaction.atomic():
            user = User.objects.create_user(email, password, **{KINDS[kind]: True})
            confirmation.ask(user)
    except IntegrityError:  # somebody registered the same address since the check
        raise Invalid("This e-mail address is taken.") from None
    return user


def check_email(email: str) -> str:
    """The address as it is kept. Raises Invalid if nobody could register with it."""
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid("This is not an e-mail address.") from None
    if User.objects.filter(email=email).exists():
        raise Invalid("This e-mail address is taken.")
    return email


def check_password(password: str, email: str) -> None:
    """Raises Invalid, with every reason, for a password that is too weak for this address."""
    try:
        validate_password(password, User(email=email))
    except ValidationError as error:
        raise Invalid(" ".join(error.messages)) from None


def require_own(user: User, password: str) -> None:
    """Whoever acts is the account's owner, not somebody with a borrowed session. Raises Invalid."""
    if not user.has_usable_password():
        raise Invalid("Your account has no password, which this needs. An admin can set one.")
    if not user.check_password(password):
        raise Invalid("This is not your password.")


def become(user: User, kind: str) -> None:
    """A customer becomes a provider too, or the other way round."""
    field = KINDS[kind]
    if not getattr(user, field):
        User.objects.filter(pk=user.pk).update(**{field: True})
        setattr(user, field, True)


def issue_key(user: User, name: str, scope: str = "order") -> str:
    """A new key for a program that uses the API in this person's name, shown once. Raises Conflict past KEYS."""
    check_keys(user)
    return ApiKey.issue(user, name, SCOPES[scope])


def check_keys(user: User) -> None:
    """Raises Conflict if there are as many keys as one person may have."""
    if ApiKey.objects.filter(user=user, revoked=None).count() >= KEYS:
        raise Conflict(f"You have {KEYS} keys. Revoke one first.")


def revoke_key(user: User, pk: int) -> ApiKey:
    """The program with this key is out from now on. Raises Missing for somebody else's key, or a worker's."""
    found = ApiKey.objects.filter(pk=pk, user=user, use__in=ApiKey.PROGRAMS).first()
    if found is None:
        raise Missing("You have no such key.")
    ApiKey.objects.filter(pk=pk, revoked=None).update(revoked=timezone.now())
    return found


def revoke_keys(user: User, *uses: str) -> None:
    """Nobody gets in any more with a key of this person's for one of these uses."""
    ApiKey.objects.filter(user=user, use__in=uses, revoked=None).update(revoked=timezone.now())


def end_tokens(user: User) -> None:
    """Log out every program that uses the API in this person's name."""
    Token.objects.filter(user=user).delete()
