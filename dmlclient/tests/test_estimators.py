"""scikit-learn's own checks of estimators, each fit a paid ticket on a whole platform; and what the checks don't ask."""

import pickle
from contextlib import contextmanager

import numpy as np
import pytest
from eth_account import Account
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.utils.estimator_checks import estimator_checks_generator

from contracts.keys import make_keystore
from dmlclient import DML, InvalidInput, Keystore, Refunded
from dmlclient.estimators import DMLClassifier, DMLRegressor
from dmlclient.tests.conftest import PASSPHRASE

TINY = {
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_readonly_memmap_input",
    "check_n_features_in_after_fitting",
    "check_estimators_nan_inf",
    "check_f_contiguous_array_estimator",
    "check_classifier_data_not_an_array",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_fit2d_1feature",
    "check_dict_unchanged",
    "check_fit2d_predict1d",
}
"""Fit on fewer than 10 samples of a class: the platform, which holds a fifth out, trains on no such data."""
ELSEWHERE = {"check_array_api_input"}
"""Runs only where SCIPY_ARRAY_API is set, with a library that is not there."""


FEW = {"check_regressors_no_decision_function"}
"""Fits on fewer than 20 samples, which are too few to learn a number from."""
ONCE = TINY | {
    "check_fit_score_takes_y",
    "check_positive_only_tag_during_fit",
    "check_estimators_dtypes",
    "check_dtype_object",
    "check_pipeline_consistency",
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_fit_check_is_fitted",
    "check_n_features_in",
}
"""Need tickets, and ask of a regressor nothing that the classifier, which is made of the same parts, was not asked."""


def checks(kind=DMLClassifier):
    """(name, check), once each; some are given more than once, with other arguments."""
    for _, check in estimator_checks_generator(kind()):
        yield check.func.__name__, check


CHECKS = [pair for pair in checks() if pair[0] not in ELSEWHERE]
OF_REGRESSORS = [pair for pair in checks(DMLRegressor) if pair[0] not in ELSEWHERE | ONCE]


@pytest.fixture(scope="module")
def estimator(platform, tmp_path_factory):
    """Of a customer of its own: the platform takes 60 orders an hour from each."""
    platform.workers(4)
    folder = tmp_path_factory.mktemp("wallet")
    with customer(platform, "estimators@example.org", folder) as (client, wallet):
        yield DMLClassifier(client, wallet=wallet, rounds=1, random_state=0)


@pytest.fixture(scope="module")
def regressor(platform, estimator, tmp_path_factory):
    """Of another customer. In a single round, many passes."""
    folder = tmp_path_factory.mktemp("wallet")
    with customer(platform, "regressors@example.org", folder) as (client, wallet):
        yield DMLRegressor(client, wallet=wallet, rounds=1, options={"epochs": 30}, random_state=0)


@contextmanager
def customer(platform, email, folder):
    """(client, wallet) of a new one with money."""
    person = platform.person(email, "customer", Account.create())
    platform.fund(person.wallet.address)
    path = folder / "keystore.json"
    make_keystore(path, PASSPHRASE, key=person.wallet, iterations=2)
    with DML(platform.url, person.call("POST", "keys", json={"name": "checks"})["key"]) as client:
        yield client, Keystore(path, PASSPHRASE, platform.rpc_url)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "check"), CHECKS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(CHECKS)])
def test_scikit_learns_check(estimator, name, check):
    if name in TINY:
        with pytest.raises(Refunded, match="of at least 10 samples"):
            check(clone(estimator))
    else:
        check(clone(estimator))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "check"), OF_REGRESSORS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(OF_REGRESSORS)]
)
def test_scikit_learns_check_of_regressors(regressor, name, check):
    if name in FEW:
        with pytest.raises(Refunded, match="too few to learn a number from"):
            check(clone(regressor))
    else:
        check(clone(regressor))


def test_what_is_excepted_is_still_a_check_of_scikit_learn():
    assert {name for name, _ in checks()} >= TINY | ELSEWHERE
    assert {name for name, _ in checks(DMLRegressor)} >= (ONCE | FEW) - {"check_classifier_data_not_an_array"}


def test_digits_are_told_apart_and_what_was_fitted_survives_a_pickle(estimator):
    source = load_digits()
    x, x_test, y, y_test = train_test_split(source.data, source.target, random_state=0, stratify=source.target)
    names = np.array([f"digit {n}" for n in range(10)])
    found = clone(estimator).set_params(rounds=15).fit(x, names[y])
    assert found.score(x_test, names[y_test]) >= 0.9
    assert found.ticket_.fields["rounds"] == 15
    np.testing.assert_allclose(found.predict_proba(x_test).sum(axis=1), 1, atol=1e-5)
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert (again.client, again.wallet) == (None, None)
    assert list(again.predict(x_test)) == list(found.predict(x_test))


def test_it_goes_where_scikit_learn_takes_a_classifier(estimator):
    source = load_digits(n_class=3)
    scores = cross_val_score(clone(estimator).set_params(rounds=5), source.data, source.target, cv=2)
    assert len(scores) == 2 and scores.min() > 0.8


def test_options_go_to_the_platform_which_checks_them(estimator):
    x, y = load_digits(n_class=2, return_X_y=True)
    with pytest.raises(InvalidInput, match="epoch: There is no such option"):
        clone(estimator).set_params(options={"epoch": 2}).fit(x, y)


def test_a_regressor_is_trained_where_the_platform_takes_regression_and_not_as_something_else(estimator):
    from tickets.api import Order

    x, y = load_diabetes(return_X_y=True)
    regressor = DMLRegressor(estimator.client, wallet=estimator.wallet, rounds=20, random_state=0)
    if "task" in Order().fields:
        assert regressor.fit(x, y).score(x, y) > 0.3
    else:
        with pytest.raises(InvalidInput, match="task: There is no such option"):
            regressor.fit(x, y)
