"""Rates tried on a sample: what runs away is found out before it is paid for, the same one every time, within bounds."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from django.core.files.base import ContentFile

from dmlworker import aggregation, datasets, flops, models, trainer, zoo
from dmlworker.cache import blob_of
from dmlworker.datasets import samples
from dmlworker.protocol import Hyper, order_seed
from ledger import pricing
from tickets.models import Dataset, Ticket
from training import actions, card, compute, ratesearch, store, tasks
from training.models import Run
from training.tests.conftest import make_ticket

PARTS, ROUNDS, SEED = 4, 3, 7
JOB = ratesearch.Training(0.1, 20, ROUNDS, PARTS, 0.0, SEED)


@pytest.fixture
def diabetes(tmp_path):
    """(spec, start, train, hold-out): a number, and a deep model that runs away at 0.1."""
    (tmp_path / "d.csv").write_bytes(samples.diabetes_csv())
    found = datasets.parts(datasets.read(tmp_path / "d.csv", "d.csv", "progression"), SEED)
    train = found.train
    head = {"task": "regression", "target": models.target_statistics(train.y)}
    spec = models.spec(models.build(train.x.shape[1:], 1, "resmlp", models.statistics(train.x), **head))
    return spec, trainer.initial_weights(spec, SEED), train, found.holdout


def federated(spec, start, train, holdout, rate: float) -> float:
    """R² on the hold-out after all rounds."""
    parts, weights = datasets.shards(train, PARTS, SEED), start
    for round_ in range(1, ROUNDS + 1):
        hypers = [Hyper(1, 20, rate, order_seed(SEED, round_, number)) for number in range(PARTS)]
        done = [trainer.train(spec, weights, part.x, part.y, hyper) for part, hyper in zip(parts, hypers, strict=True)]
        weights = aggregation.fedavg([(each, len(part)) for each, part in zip(done, parts, strict=True)])
    return trainer.evaluate(spec, weights, holdout.x, holdout.y).score


def test_a_better_rate_is_found_than_one_that_runs_away(diabetes):
    spec, start, train, holdout = diabetes
    found = ratesearch.search((spec, start), train, JOB, threading.Lock())
    assert dict(found.tried)[0.1] is None or dict(found.tried)[0.1] > 10 * dict(found.tried)[found.rate]
    assert [rate for rate, _ in found.tried] == list(ratesearch.RATES)
    assert federated(spec, start, train, holdout, 0.1) < 0 < 0.1 < federated(spec, start, train, holdout, found.rate)


def test_the_seed_gives_the_rate_and_the_hold_out_has_no_part_in_it(diabetes):
    """Which samples are taken, and which are set aside, too."""
    spec, start, train, _ = diabetes
    first, again, other = (
        ratesearch.search((spec, start), train, replace(JOB, seed=seed), threading.Lock()) for seed in (7, 7, 8)
    )
    assert first == again != other


def test_the_rate_that_was_ordered_is_among_those_tried(diabetes):
    spec, start, train, _ = diabetes
    found = ratesearch.search((spec, start), train, replace(JOB, rate=0.02), threading.Lock())
    assert sorted({*ratesearch.RATES, 0.02}) == [rate for rate, _ in found.tried]


@pytest.mark.parametrize(
    ("bound", "most", "said"),
    [("PARAMETERS", 1000, "parameters"), ("SECONDS", 0, "longer than 0 seconds")],
)
def test_what_is_too_large_or_takes_too_long_keeps_its_rate(diabetes, monkeypatch, bound, most, said):
    spec, start, train, _ = diabetes
    monkeypatch.setattr(ratesearch, bound, most)
    found = ratesearch.search((spec, start), train, JOB, threading.Lock())
    assert (found.rate, found.tried) == (0.1, ()) and said in found.told


def test_few_samples_and_whole_groups_keep_their_rate_or_are_cut_as_the_hold_out_is(diabetes):
    spec, start, train, _ = diabetes
    one = replace(train.take(np.arange(1)), groups=None)
    assert ratesearch.search((spec, start), one, JOB, threading.Lock()).why
    alone = replace(train, groups=np.zeros(len(train), np.int32))
    assert ratesearch.search((spec, start), alone, JOB, threading.Lock()).why
    grouped = replace(train, groups=(np.arange(len(train)) % 40).astype(np.int32))
    assert ratesearch.search((spec, start), grouped, JOB, threading.Lock()).tried


def test_all_rates_that_run_away_leave_the_one_that_was_ordered(diabetes, monkeypatch):
    spec, start, train, _ = diabetes
    monkeypatch.setattr(ratesearch, "RATES", (10.0,))
    found = ratesearch.search((spec, start), train, replace(JOB, rate=9.0), threading.Lock())
    assert (found.rate, found.tried) == (9.0, ((9.0, None), (10.0, None))) and "9: not finite" in found.told


def test_a_trial_is_as_long_as_a_provider_s_training_and_bounded():
    assert JOB.hyper(0.1, 1000, 250).epochs == 3  # three rounds over 250 samples each
    assert replace(JOB, passes=5000).hyper(0.1, 10**6, 1500).epochs == ratesearch.PASSES // 1500
    assert replace(JOB, passes=5000).hyper(0.1, 4, 3).epochs == 1000
    expected = Hyper(1, 20, 0.1, SEED, clip=2.0, optimizer="adam")
    assert replace(JOB, clip=2.0, optimizer="adam").hyper(0.1, 100, 75) == expected


@pytest.mark.parametrize(("gain", "other"), [(-1.0, True), (0.9, False)])
def test_another_width_is_taken_only_where_it_gains_enough(diabetes, monkeypatch, gain, other):
    monkeypatch.setattr(ratesearch, "GAIN", gain)
    spec, start, train, _ = diabetes
    others = {}
    for times in zoo.WIDTHS:
        head = {"task": "regression", "target": models.target_statistics(train.y), "times": times}
        wide = models.spec(models.build(train.x.shape[1:], 1, "resmlp", models.statistics(train.x), **head))
        others[times] = wide, trainer.initial_weights(wide, SEED)
    found = ratesearch.search((spec, start), train, JOB, threading.Lock(), others)
    losses = dict(found.widths)
    assert list(losses) == [0.5, 1.0, 2.0] and losses[1.0] == dict(found.tried)[found.rate]
    assert found.width == (min(others, key=losses.__getitem__) if other else 1.0)
    taken = f"{found.width:g} times the usual width is" if other else "the usual width is"
    assert f"; {taken} taken; loss by width: 0.5: {losses[0.5]:.4g}, 1: " in found.told


def test_widths_that_take_too_long_leave_the_rate_that_was_found(diabetes, monkeypatch):
    spec, start, train, _ = diabetes
    alone = ratesearch.search((spec, start), train, JOB, threading.Lock())
    loss = ratesearch._Trials.loss

    def late(trials, model, rate):
        """Its time is up when the other width's turn comes."""
        if model[1] is not start:
            trials._left = 0
        return loss(trials, model, rate)

    monkeypatch.setattr(ratesearch._Trials, "loss", late)
    found = ratesearch.search((spec, start), train, JOB, threading.Lock(), {2.0: (spec, list(start))})
    assert (found.rate, found.tried, found.width, found.widths) == (alone.rate, alone.tried, 1.0, ())
    assert "other widths were not compared: it took longer" in found.told


# --- A ticket ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def ordered(transactional_db, files, settings):
    """A ticket whose file is there."""
    settings.PROVIDERS_PER_TICKET = PARTS

    def made(**fields) -> Ticket:
        fields = {
            "rounds": ROUNDS,
            "target": "progression",
            "model_kind": "resmlp",
            "learning_rate": 0.1,
            "clip": 0,
        } | fields
        ticket, data = make_ticket(seed=SEED, **fields), samples.diabetes_csv()
        told = {"name": "d.csv", "size": len(data), "sha256": blob_of([data]).sha256}
        Dataset.objects.create(ticket=ticket, file=ContentFile(data, "d.csv"), **told)
        return ticket

    return made


def test_the_run_the_timeline_and_the_card_tell_what_was_found(ordered):
    ticket = ordered(search="on")
    tasks.prepare(str(ticket.pk))
    run = Run.objects.select_related("ticket").get(ticket=ticket)
    assert run.learning_rate == run.search["rate"] < 0.1 and len(run.search["tried"]) == len(ratesearch.RATES)
    [event] = ticket.events.filter(kind="search")
    assert f"learning rate {run.learning_rate:g} found" in event.text and "0.1: " in event.text

    run.all_rounds.create(number=1, start=run.start, end=run.start)
    Run.objects.filter(pk=run.pk).update(rounds=1)
    run.refresh_from_db()
    spoken = SimpleNamespace(tx="0x1", args={})
    text = card.markdown(run, spoken)
    assert f"learning rate: {run.learning_rate}, found by a search" in text and event.text in text
    told = card.structured(run, spoken)
    assert told["search"]["rate"] == told["settings"]["learning_rate"] == run.learning_rate


def test_a_job_that_was_killed_finds_the_same_when_it_is_done_again(ordered, monkeypatch):
    ticket = ordered(search="on")

    def killed(*_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(actions, "open_run", killed)
        with pytest.raises(SystemExit):
            tasks.prepare(str(ticket.pk))
    assert not Run.objects.exists() and not ticket.events.filter(kind="search").exists()
    for _ in range(2):
        tasks.prepare(str(ticket.pk))
    assert ticket.events.filter(kind="search").count() == 1
    with store.local_copy(ticket.dataset.file, ".csv") as path:
        again = compute.prepare(ticket, path, PARTS, SEED)
    assert again.search and again.search.rate == Run.objects.get().learning_rate


def test_widths_are_tried_of_the_platform_s_own_kinds_and_what_is_found_is_trained(ordered, monkeypatch):
    monkeypatch.setattr(ratesearch, "GAIN", -1.0)  # the better one of the others is taken in any case
    tasks.prepare(str(ordered(search="on").pk))
    run = Run.objects.select_related("ticket").get()
    assert [width for width, _ in run.search["widths"]] == [0.5, 1.0, 2.0] and run.search["width"] != 1
    spec = compute.spec_of(run)
    [wide] = [layer["config"]["units"] for layer in spec["config"]["layers"] if layer["config"]["name"] == "width"]
    assert wide == run.search["width"] * zoo.WIDTH
    aggregation.check(compute.weights_of(run.start_id), trainer.initial_weights(spec, SEED))


@pytest.mark.parametrize(("kind", "price", "widths"), [("linear", None, []), ("resmlp", "paid", [0.5, 1.0])])
def test_no_width_is_tried_where_there_is_none_or_it_would_cost_more_than_was_paid(ordered, kind, price, widths):
    fields = {"model_kind": kind, "search": "on"}
    if price:
        operations = flops.zoo(kind, zoo.Sample((10,)), 1)
        fields |= {"price_scheme": "compute-1", "samples": 442, "flops": operations, "flops_rate": 10**6}
        order = pricing.Order(
            len(samples.diabetes_csv()), flops=operations, samples=442, rounds=ROUNDS, epochs=1, rate=10**6
        )
        fields["price"] = pricing.price("compute-1", order)
    ticket = ordered(**fields)
    tasks.prepare(str(ticket.pk))
    assert [width for width, _ in Run.objects.get().search["widths"]] == widths


def test_nothing_is_tried_unless_asked_for(ordered):
    tasks.prepare(str(ordered().pk))
    run = Run.objects.get()
    assert (run.learning_rate, run.search, run.ticket.events.filter(kind="search").count()) == (0.1, None, 0)


@pytest.mark.parametrize(
    ("fields", "clip"),
    [({"clip": None}, 1.0), ({"clip": 0}, 0.0), ({"clip": None, "task": "classification", "target": "sex"}, 0.0)],
)
def test_gradients_are_clipped_for_a_number_unless_the_customer_says_otherwise(ordered, fields, clip):
    ticket = ordered(**{"model_kind": "auto"} | fields)
    tasks.prepare(str(ticket.pk))
    assert Run.objects.get().clip == clip
