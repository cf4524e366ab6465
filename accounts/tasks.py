"""Jobs about accounts."""

from accounts import confirmation, passwords, wallets
from accounts.forms import ResetForm
from accounts.models import User
from dmlsite import jobs


@jobs.actor()
def ask_confirmation(pk: int) -> None:
    """A mail server that is away is asked again; after that the account page sends another one."""
    if user := User.objects.filter(pk=pk, confirmed=None, is_active=True).first():
        confirmation.send(user)


@jobs.actor()
def tell_linked(pk: int, address: str) -> None:
    """Told even if the wallet is unlinked by now: somebody was in the account."""
    if user := User.objects.filter(pk=pk, is_active=True).first():
        wallets.send_linked(user, address)


@jobs.actor()
def tell_new_password(pk: int) -> None:
    if user := User.objects.filter(pk=pk, is_active=True).first():
        passwords.send(user)


@jobs.actor()
def mail_reset(email: str) -> None:
    form = ResetForm({"email": email})
    if form.is_valid():
        form.mail()
