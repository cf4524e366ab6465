"""What the customer said of the file made the price: a file that takes more to compute is given back, one that takes less is trained on."""

from types import SimpleNamespace

import numpy as np
import pytest
from django.core.files.base import ContentFile

from dmlworker import datasets, models
from dmlworker.datasets import samples
from dmlworker.datasets.options import PLAIN
from tickets import actions as tickets
from tickets import ownmodels
from tickets.models import Dataset, OwnModel, Status, Ticket
from training import card, tasks
from training.models import Blob, Round, Run
from training.tests.conftest import make_ticket

pytestmark = pytest.mark.django_db(transaction=True)
RATE = 1000
"""So low that a single sample is seen in the price."""


def quoted(data: bytes, name: str, settings, options: datasets.Options = PLAIN, spec=None, **said) -> Ticket:
    """Paid and uploaded, by what the check finds, or by what the customer says in its place. spec: of a model of the customer's own."""
    settings.FLOPS_PER_CENT = RATE
    path = settings.MEDIA_ROOT / name
    path.write_bytes(data)
    facts = datasets.inspect(path, name, options=options)
    ticket = make_ticket(
        price_scheme="compute-1", file_size=len(data), samples=said.pop("samples", facts.samples), **vars(options)
    )
    ticket.model_kind = said.pop("model_kind", "auto")
    found = {"sample_shape": facts.inputs, "outputs": facts.outputs, "tokens": facts.tokens}
    if spec:
        own = OwnModel(ticket=ticket, name="model.json", spec=models.spec_bytes(spec).decode(), parameters=1)
        own.save()
        found["own"] = ownmodels.operations(own)
    tickets.set_price(ticket, **found | said)
    ticket.save()
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, name), name=name, size=len(data), sha256="1" * 64)
    return ticket


def prepared(ticket: Ticket) -> Ticket:
    tasks.prepare.fn(str(ticket.pk))
    ticket.refresh_from_db()
    return ticket


def test_what_the_check_finds_is_enough(files, settings):
    for seed in range(3):
        for data, name in ((samples.passengers_csv(), "p.csv"), (samples.breast_cancer_csv(), "c.csv")):
            ticket = quoted(data, name, settings)
            ticket.seed = seed
            ticket.save()
            assert prepared(ticket).status == Status.UPLOADED
            assert Run.objects.filter(ticket=ticket).exists()


@pytest.mark.parametrize("said", [{"samples": 568}, {"sample_shape": (29,)}, {"model_kind": "linear", "outputs": 1}])
def test_more_than_was_quoted_is_given_back_and_nothing_is_kept(files, settings, chain, said):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings, **said))
    assert ticket.status == Status.REFUNDED and not Run.objects.exists() and not Blob.objects.exists()
    assert "it has 569 samples and its model takes" in ticket.outcome
    assert f"but {ticket.samples:,} samples with {ticket.flops:,} operations" in ticket.outcome


def test_fewer_than_quoted_are_trained_on(files, settings):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings, samples=1000, sample_shape=(40,)))
    assert ticket.status == Status.UPLOADED and Run.objects.filter(ticket=ticket).exists()


def reviews(rows: int = 400) -> bytes:
    """Nothing but text, of very different lengths; some are empty."""
    random = np.random.Generator(np.random.PCG64(1))
    lengths = np.minimum(random.geometric(0.05, rows) - 1, 200)
    texts = [" ".join(random.choice(["plot", "actor", "film", "scene", "music"], length)) for length in lengths]
    return "\n".join(["review,liked", *(f"{each},{'yn'[row % 2]}" for row, each in enumerate(texts))]).encode()


def weather(rows: int = 200) -> bytes:
    """In the order of time: numbers, and a category."""
    lines = [f"{row % 24},{'north' if row % 7 < 3 else 'south'},{10 + row % 5 + row / 100:.3f}" for row in range(rows)]
    return "\n".join(["hour,wind,warmth", *lines]).encode()


def labels(rows: int = 200) -> bytes:
    cells = [";".join(name for n, name in enumerate("pqr") if (row % 7 + 1 >> n) & 1) for row in range(rows)]
    return "\n".join(["a,b,topics", *(f"{row % 9},{row % 4},{cell}" for row, cell in enumerate(cells))]).encode()


CHECKED = [
    (samples.diabetes_csv(), ["auto", "linear", "resmlp"], {}),
    (reviews(), ["auto", "mlp", "gru", "transformer"], {}),
    (weather(), ["auto", "mlp", "cnn1d", "gru", "transformer"], {"window": 6}),
    (weather(), ["auto"], {"window": 12, "horizon": 3}),
    (labels(), ["auto", "resmlp"], {"task": "multilabel"}),
]


@pytest.mark.parametrize(
    ("data", "kind", "options"), [(data, kind, said) for data, kinds, said in CHECKED for kind in kinds]
)
def test_what_the_check_finds_is_enough_for_every_kind(files, settings, data, kind, options):
    for seed in range(3):
        ticket = quoted(data, "t.csv", settings, datasets.Options(**options), model_kind=kind)
        ticket.seed = seed
        ticket.save()
        assert prepared(ticket).status == Status.UPLOADED, ticket.outcome


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (samples.diabetes_csv(), {}, {"sample_shape": (9,)}),
        (reviews(), {}, {"tokens": None, "model_kind": "linear"}),
        (reviews(), {}, {"sample_shape": (20,)}),
        (weather(), {"window": 6}, {"sample_shape": (5, 5)}),
        (weather(), {"window": 6}, {"sample_shape": (5,)}),
        (labels(), {"task": "multilabel"}, {"outputs": 2}),
    ],
)
def test_too_little_said_of_numbers_text_windows_and_labels_is_given_back(files, settings, chain, data, options, said):
    ticket = prepared(quoted(data, "t.csv", settings, datasets.Options(**options), **said))
    assert ticket.status == Status.REFUNDED and "were quoted and paid for" in ticket.outcome


def own_model(*inside, outputs=2, end="softmax"):
    import keras

    rows, last = keras.Input((30,)), keras.layers.Activation(end) if end else keras.layers.Rescaling(1.0)
    values = rows
    for layer in (*inside, keras.layers.Dense(9, "tanh"), keras.layers.Dense(outputs), last):
        values = layer(values)
    return models.spec(keras.Model(rows, values))


def test_a_model_of_ones_own_is_quoted_to_the_operation(files, settings):
    import keras

    for inside in ((), (keras.layers.Rescaling(0.1),)):
        ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings, spec=own_model(*inside)))
        assert ticket.status == Status.UPLOADED
        assert ticket.flops == 3 * (2 * 30 + 2 * 30 * 9 + 9 + 9 + 2 * 9 * 2 + 2 + 2)


@pytest.mark.parametrize("said", [{"samples": 568}, {"own": 1000}])
def test_a_model_of_ones_own_that_takes_more_is_given_back(files, settings, chain, said):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings, spec=own_model(), **said))
    assert ticket.status == Status.REFUNDED and not Run.objects.exists()
    assert "it has 569 samples and its model takes 1,974 operations" in ticket.outcome


def test_by_size_nothing_else_is_asked(files, settings):
    data = samples.breast_cancer_csv()
    ticket = make_ticket(file_size=len(data))
    Dataset.objects.create(ticket=ticket, file=ContentFile(data, "c"), name="c.csv", size=len(data), sha256="1" * 64)
    assert prepared(ticket).status == Status.UPLOADED


def test_the_model_card_names_the_scheme_and_its_parts(files, settings):
    ticket = prepared(quoted(samples.breast_cancer_csv(), "c.csv", settings))
    run, last = ticket.run, {"state": Round.State.CLOSED, "accuracy": 1, "loss": 0}
    Round.objects.create(run=run, number=run.rounds, start=run.start, **last)
    text = card.markdown(ticket.run, SimpleNamespace(tx="0x1"))
    assert "(`compute-1`; size 0.02 DML: " in text
    assert "; complexity 15988.45 DML: 280,992 operations for a sample × 569 samples × 10 rounds" in text
