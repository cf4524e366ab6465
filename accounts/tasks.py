"""Jobs about accounts."""

from accounts import confirmation
from accounts.models import User
from dmlsite import jobs


@jobs.actor()
def ask_confirmation(pk: int) -> None:
    """A mail server that is away is asked again; after that the account page sends another one."""
    if user := User.objects.filter(pk=pk, confirmed=None, is_active=True).first():
        confirmation.send(user)
