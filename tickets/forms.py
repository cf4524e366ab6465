"""The order form: what a customer may choose, and its bounds."""

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings

from contracts.chain import ChainError, to_checksum
from dmlworker import datasets, flops, rewards, schedules
from dmlworker.aggregation import rules
from ledger import pricing
from tickets.models import DATA, TRAINING, OnCheat, Search, Task

MODELS = [
    ("auto", "Choose by the data's shape"),
    ("linear", "Linear"),
    ("mlp", "MLP (two hidden layers)"),
    ("cnn", "CNN (images)"),
    ("resmlp", "Residual MLP (tables; deeper)"),
    ("resnet", "Small ResNet (images; deeper, needs more rounds)"),
    ("cnn1d", "1-D CNN (text and series)"),
    ("gru", "GRU (text and series; slow)"),
    ("transformer", "Small transformer (text and series)"),
]

OPTIMIZERS = [
    ("sgd", "Plain gradient steps (SGD)"),
    ("momentum", "SGD with momentum 0.9"),
    ("adam", "Adam"),
]

SCHEDULES = [
    ("constant", "The same in all"),
    ("cosine", "Cosine: falls to almost nothing"),
    ("step", "Step: halved at one half, and at three quarters"),
    ("warm-up", "Warm-up: grows over the first fifth"),
]

STRATEGIES = [
    ("fedavg", "FedAvg: take it as it is"),
    ("fedprox", "FedProx: hold local training to the start"),
    ("fedavgm", "FedAvgM: momentum"),
    ("fedadam", "FedAdam"),
    ("fedyogi", "FedYogi"),
]


def rule_choices() -> list[tuple[str, str]]:
    """Each rule, and how many cheats it withstands among a ticket's providers."""
    n = settings.PROVIDERS_PER_TICKET
    found = [("mean", "Weighted mean: withstands none")]
    for name, rule in rules.RULES.items():
        most = rules.withstands(name, n)
        needed = f"needs {rule.needs(1)} providers, there are {n}"
        if name != "mean":
            found.append((name, f"{rule.title}: " + (f"withstands {most} of {n}" if most else needed)))
    return found


REWARDS = [(name, rewards.SCHEMES[name].title) for name in rewards.OFFERED]

PROVIDERS = [("False", "Any in standing"), ("True", "Attested ones only")]

PRICES = [(name, pricing.SCHEMES[name].title) for name in pricing.OFFERED]

COMPRESSIONS = [("none", "As they are"), ("fp16", "Half as long (fp16)"), ("int8", "A quarter as long (int8)")]


SHARDINGS = [
    ("iid", "Rows of all kinds to each"),
    ("group", "A group's rows to one provider"),
    ("speed", "Rows of all kinds, more to the faster"),
]
CLASS_WEIGHTS = [("none", "As often as they are"), ("balanced", "All alike: rare ones count more")]


class DataForm(forms.Form):
    """What a customer says of the data, beside the target. What is not there is as usual."""

    task = forms.ChoiceField(
        label="What to learn",
        choices=Task.choices,
        required=False,
        initial=Task.AUTO,
        help_text="By its values: a target of numbers with a fraction, or of more than 20 different ones, is a number; cells such as a;b, in many combinations, are labels; any other is a class.",
    )
    leave_out = forms.JSONField(required=False, initial=list, widget=forms.HiddenInput)
    kinds = forms.JSONField(required=False, initial=dict, widget=forms.HiddenInput)
    group = forms.CharField(
        label="Group column",
        required=False,
        max_length=200,
        help_text="Of a table: the column that says which rows belong together, such as one person's. They are never on both sides of the hold-out, and it is no feature.",
        widget=forms.TextInput(attrs={"list": "columns", "autocomplete": "off", "placeholder": "none"}),
    )
    sharding = forms.ChoiceField(
        label="Providers get",
        choices=SHARDINGS,
        required=False,
        initial="iid",
        help_text="By group, no two providers have rows of the same one; the model may need more rounds. By speed, rounds are shorter where providers differ; parts may change hands.",
    )
    window = forms.IntegerField(
        label="Window",
        required=False,
        min_value=0,
        max_value=datasets.options.MAX_WINDOW,
        initial=0,
        help_text="Of a table in the order of time: so many rows in a row are one sample; 0: each row is.",
    )
    horizon = forms.IntegerField(
        label="Horizon",
        required=False,
        min_value=1,
        max_value=datasets.options.MAX_HORIZON,
        initial=1,
        help_text="How many rows after a window's last its target lies.",
    )
    class_weights = forms.ChoiceField(
        label="Classes count",
        choices=CLASS_WEIGHTS,
        required=False,
        initial="none",
        help_text="In training. Balanced, a rare class is found more often, and more often where it is not.",
    )

    def clean_leave_out(self) -> list[str]:
        return _names(self.cleaned_data["leave_out"] or [])

    def clean_kinds(self) -> dict[str, str]:
        found = self.cleaned_data["kinds"] or {}
        if not isinstance(found, dict):
            raise forms.ValidationError("This is not a kind for each column.")
        _names(list(found.values()))
        return found

    def clean(self) -> dict[str, Any]:
        usual = {name: getattr(datasets.Options(), name) for name in DATA}
        found = super().clean() or {}
        return found | {name: usual[name] for name in DATA if name in found and found[name] in (None, "")}

    def first_error(self) -> str:
        """With the field's name."""
        name, errors = next(iter(self.errors.items()))
        label = self.fields[name].label
        return f"{label}: {errors[0]}" if label else str(errors[0])

    def data_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in DATA if name != "task"]

    def data_chosen(self) -> bool:
        """Whether any of it is not as usual, or wrong."""
        usual = {str(getattr(datasets.Options(), name)) for name in DATA} | {"None", "[]"}
        return any(field.errors or str(field.value()) not in usual for field in self.data_fields())


def _names(found: Any) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise forms.ValidationError("This is not a list of columns.")
    return list(found)


class OrderForm(DataForm):
    """Everything but the file itself, which is uploaded after payment. The hidden fields are filled by the page."""

    file_name = forms.CharField(max_length=200, widget=forms.HiddenInput, error_messages={"required": "Choose a file."})
    file_size = forms.IntegerField(
        min_value=1,
        max_value=settings.MAX_DATASET_BYTES,
        widget=forms.HiddenInput,
        error_messages={
            "required": "Choose a file.",
            "min_value": "The file is empty.",
            "max_value": f"The file is larger than {settings.MAX_DATASET_BYTES // 10**6:,} MB, the most we take.",
        },
    )
    target = forms.CharField(
        label="Target column",
        required=False,
        max_length=200,
        help_text="Of a table: the column to predict. Empty: the column named target, label or class, else the last one.",
        widget=forms.TextInput(attrs={"list": "columns", "autocomplete": "off", "placeholder": "found by itself"}),
    )
    on_cheat = forms.ChoiceField(
        label="If a provider cheats",
        choices=OnCheat.choices,
        initial=OnCheat.REFUND,
        help_text="Work is audited; a cheat loses its deposit in either case. Going on takes longer, and costs you nothing.",
    )
    attested = forms.TypedChoiceField(
        label="Providers",
        choices=PROVIDERS,
        coerce=lambda chosen: chosen == "True",
        empty_value=False,
        required=False,
        initial="False",
        help_text="An attested worker has proven by its processor that it runs software of the platform's list, in a virtual machine that its owner cannot look into. There are few: it may wait long. The platform itself reads your data in any case.",
    )
    reward = forms.ChoiceField(
        label="How providers are paid",
        choices=REWARDS,
        initial=rewards.DEFAULT,
        help_text="The price is the same. The formula that you choose is kept with the ticket.",
    )
    model_kind = forms.ChoiceField(label="Model", choices=MODELS, initial="auto")
    rounds = forms.IntegerField(
        label="Rounds", min_value=1, max_value=100, initial=10, help_text="How often updates are averaged: 1 to 100."
    )
    patience = forms.IntegerField(
        label="Patience",
        min_value=0,
        max_value=100,
        initial=0,
        help_text="End early after so many rounds without a lower loss on the hold-out; 0: never. The price stays the same.",
    )
    epochs = forms.IntegerField(
        label="Local epochs",
        min_value=1,
        max_value=50,
        initial=1,
        help_text="Passes over its part that a provider makes in a round: 1 to 50.",
    )
    batch_size = forms.IntegerField(
        label="Batch size", min_value=1, max_value=1024, initial=20, help_text="Samples per training step: 1 to 1024."
    )
    optimizer = forms.ChoiceField(
        label="Local optimizer",
        choices=OPTIMIZERS,
        initial="sgd",
        help_text="Of the providers' steps; each round begins anew. Momentum and Adam get further in few rounds, at the right learning rate.",
    )
    learning_rate = forms.FloatField(
        label="Learning rate",
        min_value=1e-5,
        max_value=10,
        initial=0.1,
        help_text="Step size: 0.00001 to 10. About 0.1 for plain steps, 0.01 with momentum, 0.001 for Adam.",
    )
    search = forms.ChoiceField(
        label="Search for learning rate and width",
        choices=Search.choices,
        initial=Search.OFF,
        help_text="Before the training, on a sample of the training part; a minute at most. Half and twice the width are tried of our own models. It costs nothing more.",
    )
    schedule = forms.ChoiceField(
        label="Learning rate over the rounds",
        choices=SCHEDULES,
        initial=schedules.CONSTANT,
        help_text="Falling, it ends closer to the best the model can be; growing first, it does not run away at the start.",
    )
    clip = forms.FloatField(
        label="Clip gradients",
        required=False,
        min_value=0,
        max_value=1000,
        help_text="The norm that a step's gradient has at most, so that no odd batch throws the model off; 0: none. Empty: by what is learnt, 1 for a number, else none.",
        widget=forms.NumberInput(attrs={"step": "any", "placeholder": "by what is learnt"}),
    )
    rule = forms.ChoiceField(
        label="Aggregation",
        choices=rule_choices,
        initial="mean",
        help_text="How a round's updates become one. All but the mean withstand cheats among the providers, even before an audit finds them, and cost a little accuracy.",
    )
    byzantine = forms.IntegerField(
        label="Cheats to withstand",
        min_value=0,
        max_value=1000,
        initial=1,
        help_text="By the aggregation, in each round; it has no meaning for the mean.",
    )
    strategy = forms.ChoiceField(
        label="Server optimizer",
        choices=STRATEGIES,
        initial="fedavg",
        help_text="What becomes of a round's aggregated update. The others help when the parts differ much, or rounds are few.",
    )
    proximal = forms.FloatField(
        label="FedProx: pull",
        min_value=0,
        max_value=100,
        initial=0.01,
        help_text="How strongly providers' training is held to the round's start: 0 to 100. Only for FedProx.",
    )
    compression = forms.ChoiceField(
        label="Updates",
        choices=COMPRESSIONS,
        initial="none",
        help_text="How providers send their updates. Shorter ones help on slow lines, and cost a little accuracy.",
    )
    seed = forms.IntegerField(
        label="Seed",
        required=False,
        min_value=0,
        max_value=2**31 - 1,
        help_text="The same file, settings and seed give the same split and order. Empty: drawn at random.",
    )
    model_file = forms.FileField(
        label="A model of your own",
        required=False,
        max_length=200,
        help_text="In place of the kinds above: model.json or .keras, as Keras 3 saves it. Of a .keras file, training starts with its weights. What makes your rows numbers of one size is put in front, unless the model has it.",
        widget=forms.FileInput(attrs={"accept": ".json,.keras"}),
    )
    model_weights = forms.FileField(
        label="Its start weights",
        required=False,
        max_length=200,
        help_text="Beside a model.json, if you have some: a .weights.h5. Empty: drawn at random.",
        widget=forms.FileInput(attrs={"accept": ".h5"}),
    )
    price_scheme = forms.ChoiceField(
        label="How the price is made",
        choices=PRICES,
        initial=pricing.DEFAULT,
        help_text=" ".join(f"{title}: {pricing.SCHEMES[name].says}" for name, title in PRICES),
    )
    samples = forms.IntegerField(
        label="Samples",
        required=False,
        min_value=1,
        max_value=10**10,
        help_text="Found by the check. Of a file too large to be checked, say it yourself: if more has to be computed than you paid for, nothing is trained and the payment goes back.",
    )
    sample_shape = forms.RegexField(
        r"^\s*\d{1,9}(\s*[x×,]\s*\d{1,9}){0,2}\s*$",
        label="Shape of a sample",
        required=False,
        max_length=40,
        help_text="Of a table the number of columns that the model takes, a column for each value of a category; of windows rows × columns, the target among them; of images height × width, and × channels; of nothing but text the number of words that count, 512 at most.",
        error_messages={"invalid": "Write it like 30, 28 × 28 or 32 × 32 × 3."},
    )
    outputs = forms.IntegerField(
        label="Outputs of the model",
        required=False,
        min_value=1,
        max_value=100_000,
        help_text="One for each class or label; 1 if a number is learnt.",
    )
    tokens = forms.IntegerField(
        label="Different words",
        required=False,
        min_value=0,
        max_value=100_000,
        help_text="Only where there is nothing but text. How many makes no difference to the price.",
    )
    payer = forms.CharField(
        label="Wallet that pays",
        max_length=42,
        widget=forms.TextInput(attrs={"placeholder": "0x…", "autocomplete": "off", "spellcheck": "false"}),
        help_text="Only this wallet can pay the quote, and a refund goes to no other.",
        error_messages={"required": "Connect the wallet that will pay."},
    )

    ADVANCED = ("model_kind", *TRAINING, "search", "seed")
    KEPT = ("target", "attested", "on_cheat", "reward", "payer", *ADVANCED, *DATA, "price_scheme")
    """What a ticket has of it, all but the file."""
    SAID = ("sample_shape", "outputs", "tokens")
    WORK = ("samples", *SAID)
    """What a price by complexity needs of the file."""

    def clean_sample_shape(self) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", self.cleaned_data["sample_shape"])))

    def clean_payer(self) -> str:
        try:
            return str(to_checksum(self.cleaned_data["payer"]))
        except ChainError:
            raise forms.ValidationError("This is not a wallet's address.") from None

    def clean(self) -> dict[str, Any]:
        """An aggregation that protects nothing is refused with the reason."""
        found = super().clean() or {}
        if "rule" in found and "byzantine" in found:
            try:
                rules.check(found["rule"], settings.PROVIDERS_PER_TICKET, found["byzantine"])
            except ValueError as error:
                self.add_error("rule", str(error))
        return found

    def options(self) -> dict[str, Any]:
        """What `tickets.actions.order` takes."""
        return dict(self.cleaned_data)

    def work_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.WORK]

    def advanced_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.ADVANCED]

    def own_model_fields(self) -> list[forms.BoundField]:
        return [self["model_file"], self["model_weights"]]

    def advanced_errors(self) -> bool:
        return any(self[name].errors for name in self.ADVANCED)

    def own_model_errors(self) -> bool:
        return any(field.errors for field in self.own_model_fields())


class PriceForm(OrderForm):
    """The part of an order that the price depends on; what is not given has its default."""

    own_operations = forms.IntegerField(
        label="A model of your own", required=False, min_value=0, max_value=flops.MOST
    )  # as the page was told when it was read; the order reads it again
    PRICED = (
        "file_size",
        "price_scheme",
        "model_kind",
        "rounds",
        "epochs",
        "window",
        "own_operations",
        *OrderForm.WORK,
    )

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__({name: self.base_fields[name].initial for name in self.PRICED} | dict(given.items()))
        for name in self.fields.keys() - set(self.PRICED):
            del self.fields[name]
