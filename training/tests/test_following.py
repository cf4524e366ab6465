"""Who may follow a ticket by its page's socket."""

import pytest
from asgiref.sync import async_to_sync
from channels.testing import WebsocketCommunicator
from django.conf import settings as site
from django.contrib.auth.models import Permission
from django.test import Client

from dmlsite.asgi import application
from dmlsite.tests.people import person, verified
from dmlsite.tests.rows import everything

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ticket(settings):
    settings.ADMIN_TWO_FACTOR = True
    return everything()


def entered(user):
    client = Client()
    client.force_login(user)
    return client


@async_to_sync
async def follows(client, ticket):
    """Whether the socket opens for a browser with this client's cookie."""
    cookie = client.cookies.get(site.SESSION_COOKIE_NAME)
    headers = [(b"origin", b"http://localhost")]
    headers += [(b"cookie", f"{cookie.key}={cookie.value}".encode())] if cookie else []
    line = WebsocketCommunicator(application, f"/ws/tickets/{ticket.pk}/", headers)
    opened, _ = await line.connect(timeout=10)
    await line.disconnect()
    return opened


def test_its_customer_follows_it_and_nobody_else(ticket):
    assert follows(entered(ticket.customer), ticket)
    assert not follows(entered(person("outsider")), ticket)
    assert not follows(Client(), ticket)


def test_an_admin_does_with_the_second_factor(ticket):
    root = person("root", is_staff=True, is_superuser=True)
    client = entered(root)
    assert not follows(client, ticket)
    verified(client, root)
    assert follows(client, ticket)


def test_anothers_second_factor_is_none(ticket):
    root, other = (person(name, is_staff=True, is_superuser=True) for name in ("root", "other"))
    client = entered(root)
    verified(client, other)
    assert not follows(client, ticket)


def test_an_admin_does_with_the_right_to_see_tickets_only(ticket, settings):
    settings.ADMIN_TWO_FACTOR = False
    admin = person("lesser", is_staff=True)
    assert not follows(entered(admin), ticket)
    admin.user_permissions.add(Permission.objects.get(codename="view_ticket"))
    assert follows(entered(admin), ticket)
