"""Moderation of providers: look at the evidence, accuse, lift; each with a reason that is kept."""

from datetime import datetime
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.timesince import timeuntil

from dmlsite.admin import ReadOnlyAdmin, ReadOnlyInline, actor, list_link, page_link, pretty, reasoned, tx_link
from dmlsite.errors import Conflict
from ledger.admin import amount
from ledger.models import ChainTx, Currency, balance
from providers import actions, attestations
from providers.models import (
    Accusation,
    Attestation,
    Connection,
    Measurement,
    MeasurementEvent,
    Provider,
    Standing,
    StandingEvent,
)

BAN = (
    "Ban by accusation: no more work from now on. When the challenge time is over, the ban is executed on the chain: "
    "the deposit goes to the treasury and the wallet can never come back. Until then the accusation can be lifted. "
    "The provider sees your reason at once; when the ban was executed, everybody does on its public page: name no customer in it."
)
LIFT = (
    "Lift the accusation: everybody whom it accuses may work again and keeps the deposit. This works until the ban was "
    "executed. The provider sees your reason."
)


class StandingEventInline(ReadOnlyInline):
    model = StandingEvent
    verbose_name_plural = "history of the standing"
    show_change_link = False
    fields = ["at", "old", "new", "reason", "actor", "related"]

    @admin.display(description="ticket or case")
    def related(self, row: StandingEvent) -> str:
        return case_link(row.case)


class ConnectionInline(ReadOnlyInline):
    model = Connection
    verbose_name_plural = "connected workers"
    show_change_link = False
    fields = ["device", "opened", "seen"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Connection]:
        return Connection.objects.online()


def case_link(case: UUID | None) -> str:
    """To the accusation, if there is one, else to the ticket."""
    if case is None:
        return "–"
    found = Accusation.objects.filter(pk=case).first()
    return page_link(found) if found else _ticket_link(case)


def _ticket_link(case: UUID) -> str:
    return list_link("tickets_ticket", str(case), q=case)


def _countdown(moment: datetime) -> str:
    when = f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"
    return f"{when}, in {timeuntil(moment)}" if moment > timezone.now() else f"since {when}"


def _table(facts: dict[str, object]) -> str:
    """Evidence as lines of name and value; what is no plain value is shown as JSON."""
    cells = ((name.replace("_", " "), _cell(value)) for name, value in facts.items())
    rows = format_html_join("", "<tr><th>{}</th><td>{}</td></tr>", cells)
    return format_html("<table>{}</table>", rows) if rows else ""


def _cell(value: object) -> object:
    if value is None:
        return "–"
    return value if isinstance(value, str | int | float) else pretty(value)


@admin.register(Provider)
class ProviderAdmin(ReadOnlyAdmin):
    actions = buttons = ("ban", "lift")
    inlines = [StandingEventInline, ConnectionInline]
    list_display = ["user_name", "standing", "streak", "email", "wallet", "deposit", "created"]
    list_filter = ["standing", "created"]
    list_select_related = ["user"]
    search_fields = ["user_name", "user__email", "wallet", "id", "deposit_tx"]
    search_help_text = "User name, e-mail address, wallet, or the deposit's transaction"
    fields = ["user_name", "standing", "streak", "page", "account", "wallet", "deposit", "paid_in", "earned", "cases"]
    fields += ["work", "created"]

    @admin.display(ordering="user__email")
    def email(self, row: Provider) -> str:
        return row.user.email

    @admin.display(description="public page")
    def page(self, row: Provider) -> str:
        if not row.wallet:
            return "none before the first deposit"
        url = reverse("training:provider", args=[row.user_name])
        return format_html('<a href="{}">{}</a>', url, url)

    @admin.display
    def account(self, row: Provider) -> str:
        return page_link(row.user)

    @admin.display(ordering="deposit_gwei")
    def deposit(self, row: Provider) -> str:
        return amount(row.deposit_gwei, Currency.COIN)

    @admin.display(description="deposit's transaction")
    def paid_in(self, row: Provider) -> str:
        return tx_link(row.deposit_tx)

    @admin.display
    def earned(self, row: Provider) -> str:
        return amount(balance(f"provider:{row.wallet}"), Currency.DML) if row.wallet else "–"

    @admin.display(description="accusations")
    def cases(self, row: Provider) -> str:
        links = ((page_link(case), case.get_state_display()) for case in row.accusations.all())
        return format_html_join(mark_safe("<br>"), "{}: {}", links) or "none"

    @admin.display
    def work(self, row: Provider) -> str:
        return list_link("training_assignment", "assignments and audits", provider__id__exact=row.pk)

    @reasoned("Ban", BAN)
    def ban(self, request: HttpRequest, row: Provider, reason: str) -> None:
        if row.standing not in (Standing.ACTIVE, Standing.EXITING):
            raise Conflict(f"Only a provider with a deposit can be banned; this one is {row.get_standing_display()}.")
        evidence = {"decided_by": actor(request), "at": timezone.now().isoformat(), "reason": reason}
        found = actions.accuse([row], [], reason, evidence=evidence, actor=actor(request))
        self.log_addition(request, found, f"Ban of {row}: {reason}")

    @reasoned("Lift accusation", LIFT)
    def lift(self, request: HttpRequest, row: Provider, reason: str) -> None:
        found = row.accusations.filter(state=Accusation.State.OPEN).first()
        if found is None:
            raise Conflict("No accusation is open.")
        actions.lift(found, reason, actor(request))
        self.log_change(request, found, f"Lift accusation: {reason}")


@admin.register(Accusation)
class AccusationAdmin(ReadOnlyAdmin):
    actions = buttons = ("lift",)
    list_display = ["created", "id", "accused", "reason", "state", "said", "executable"]
    list_filter = ["state", "created"]
    search_fields = ["id", "cheats__user_name", "cheats__wallet", "reason"]
    fields = [
        "id",
        "state",
        "executable",
        "lapses",
        "accused",
        "reason",
        "replays",
        "what_else",
        "answered",
        "heirs",
        "about",
        "sent",
        "created",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Accusation]:
        return super().get_queryset(request).prefetch_related("cheats", "answers__provider")

    @admin.display
    def accused(self, row: Accusation) -> str:
        return format_html_join(", ", "{}", ((page_link(provider),) for provider in row.cheats.all()))

    @admin.display(description="ban can be executed", ordering="executable_at")
    def executable(self, row: Accusation) -> str:
        if row.state != Accusation.State.OPEN:
            return "–"
        if row.executable_at is None:
            return "the challenge time begins when the accusation is on the chain"
        return _countdown(row.executable_at)

    @admin.display(description="lapses", ordering="lapses_at")
    def lapses(self, row: Accusation) -> str:
        return _countdown(row.lapses_at) if row.lapses_at and row.state == Accusation.State.OPEN else "–"

    @admin.display(description="evidence: failed replays")
    def replays(self, row: Accusation) -> str:
        """What training noted: two replays of the same work, each too far from what was claimed."""
        found = row.evidence.get("replays", [])
        return format_html_join("", "{}", ((_table(replay),) for replay in found)) or "none: an admin decided"

    @admin.display(description="evidence: the rest")
    def what_else(self, row: Accusation) -> str:
        return _table({name: value for name, value in row.evidence.items() if name != "replays"}) or "–"

    @admin.display(description="what the accused say")
    def answered(self, row: Accusation) -> str:
        said = (
            (f"{timezone.localtime(one.at):%Y-%m-%d %H:%M:%S}", one.provider, one.text) for one in row.answers.all()
        )
        return format_html_join("", "<p><b>{}, {}:</b><br>{}</p>", said) or "nothing so far"

    @admin.display(description="answers")
    def said(self, row: Accusation) -> int:
        return len(row.answers.all())

    @admin.display(description="who gets the deposits")
    def heirs(self, row: Accusation) -> str:
        return format_html_join(mark_safe("<br>"), "{}", ((wallet,) for wallet in row.honest)) or "the treasury"

    @admin.display(description="ticket")
    def about(self, row: Accusation) -> str:
        return _ticket_link(row.pk)

    @admin.display(description="chain transactions")
    def sent(self, row: Accusation) -> str:
        found = ChainTx.objects.filter(case=row.pk).order_by("created")
        links = ((page_link(tx, tx.verb), tx.get_state_display(), tx_link(tx.hash)) for tx in found)
        return format_html_join(mark_safe("<br>"), "{}: {} {}", links) or "none"

    @reasoned("Lift accusation", LIFT)
    def lift(self, request: HttpRequest, row: Accusation, reason: str) -> None:
        actions.lift(row, reason, actor(request))


# --- Attestations -----------------------------------------------------------------------------------------------------
WITHDRAW = (
    "Take the measurement from the list: workers attested by it get no more work of tickets for attested providers, from now on. "
    "Your reason stays in its history."
)
ALLOW = "Put the measurement back on the list. What was attested by it and has not expired counts again."


class MeasurementForm(forms.ModelForm):
    """A new one; what is on the list is changed by its buttons alone."""

    value = forms.RegexField(
        r"^[0-9a-f]{96}$",
        label="Measurement",
        widget=forms.TextInput(attrs={"size": 100}),
        help_text="96 hexadecimal digits, as `dmlworker attest` prints them in the guest. Compute it yourself from the image: whoever sends it to you may have measured something else.",
    )
    reason = forms.CharField(widget=forms.Textarea(attrs={"rows": 3, "cols": 80}), max_length=1000)

    class Meta:
        model = Measurement
        fields = ["value", "title"]


class MeasurementEventInline(ReadOnlyInline):
    model = MeasurementEvent
    verbose_name_plural = "history"
    show_change_link = False
    fields = ["at", "allowed", "reason", "actor"]


@admin.register(Measurement)
class MeasurementAdmin(ReadOnlyAdmin):
    """What attested workers may run: a list that admins keep, each change with a reason."""

    actions = buttons = ("withdraw", "allow")
    inlines = [MeasurementEventInline]
    list_display = ["title", "value", "allowed", "in_use"]
    list_filter = ["allowed"]
    search_fields = ["title", "value"]
    form = MeasurementForm

    def has_add_permission(self, request: HttpRequest, obj: Measurement | None = None) -> bool:
        return request.user.has_perm("providers.add_measurement")

    def get_inlines(self, request: HttpRequest, obj: Measurement | None) -> list[type[ReadOnlyInline]]:
        return [MeasurementEventInline] if obj else []

    def get_fields(self, request: HttpRequest, obj: Measurement | None = None) -> list[str]:
        return ["title", "value", "allowed", "in_use"] if obj else ["value", "title", "reason"]

    def save_model(self, request: HttpRequest, obj: Measurement, form: forms.ModelForm, change: bool) -> None:
        given = form.cleaned_data
        made = attestations.allow(given["value"], given["title"], given["reason"], actor(request))
        obj.pk = made.pk

    @admin.display(description="attested by it now")
    def in_use(self, row: Measurement) -> int:
        return row.attestations.good().count()

    @reasoned("Withdraw", WITHDRAW)
    def withdraw(self, request: HttpRequest, row: Measurement, reason: str) -> None:
        attestations.change(row, False, reason, actor(request))

    @reasoned("Allow again", ALLOW)
    def allow(self, request: HttpRequest, row: Measurement, reason: str) -> None:
        attestations.change(row, True, reason, actor(request))


@admin.register(Attestation)
class AttestationAdmin(ReadOnlyAdmin):
    """What workers presented, and what came of it."""

    list_display = ["asked", "provider", "state", "measurement", "product", "expires", "reason"]
    list_filter = ["state", "product", "asked"]
    list_select_related = ["provider", "measurement"]
    search_fields = ["provider__user_name", "measurement__value", "chip", "nonce"]
    fields = ["provider", "state", "reason", "asked", "presented", "expires", "measurement", "product", "tcb", "chip"]
    fields += ["nonce", "session", "report_hex", "certificate_text"]

    @admin.display(description="report")
    def report_hex(self, row: Attestation) -> str:
        return format_html("<pre>{}</pre>", bytes(row.report).hex("\n", 32))

    @admin.display(description="certificate")
    def certificate_text(self, row: Attestation) -> str:
        """As it came: PEM, or DER in hexadecimal."""
        data = bytes(row.certificate)
        return format_html("<pre>{}</pre>", data.decode() if data.isascii() else data.hex("\n", 32))
