"""Put DMLToken and DMLEscrow on the chain at CHAIN_RPC_URL and write the deployment file.

Needs the admin's keystore with enough native coin. On a development chain the missing keystores are made and funded.
"""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from contracts import devchain
from contracts.chain import ChainError, connect
from contracts.deploy import Terms, deploy
from ledger.gateway import key
from ledger.keys import make_development_keys

ROLES = ("quoter", "settler", "guardian")
TEST_COINS = 100 * 10**9
"""gwei that each key of a development installation gets."""


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--treasury", help="Wallet of the fees; default: the admin's")
        parser.add_argument("--force", action="store_true", help="Deploy again although there is a deployment")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.CHAIN_DEPLOYMENT.exists() and not options["force"]:
            raise CommandError(
                f"{settings.CHAIN_DEPLOYMENT} exists; --force deploys anew and leaves the old escrow behind"
            )
        try:
            self._deploy(options["treasury"])
        except ChainError as error:
            raise CommandError(str(error)) from error

    def _deploy(self, treasury: str | None) -> None:
        w3 = connect(settings.CHAIN_RPC_URL)
        if settings.DEV_WALLET:
            for role in make_development_keys():
                devchain.fund(settings.CHAIN_RPC_URL, key(role).address, TEST_COINS)
        wallets = {role: key(role).address for role in ROLES}
        admin = key("admin")
        terms = Terms.development() if settings.DEV_WALLET else Terms()
        done = deploy(
            w3, admin, **wallets, treasury=treasury or admin.address, terms=terms, explorer=settings.CHAIN_EXPLORER
        )
        if done.chain_id != settings.CHAIN_ID:
            raise CommandError(f"Deployed on chain {done.chain_id}, but CHAIN_ID is {settings.CHAIN_ID}")
        done.save(settings.CHAIN_DEPLOYMENT)
        self.stdout.write(f"token {done.token}\nescrow {done.escrow}\nchain {done.chain_id}, from block {done.block}")
