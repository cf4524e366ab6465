"""scikit-learn's own checks of estimators, each fit a paid ticket on a whole platform; and what the checks don't ask."""

import pickle

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


def checks():
    """(name, check), once each; some are given more than once, with other arguments."""
    for _, check in estimator_checks_generator(DMLClassifier()):
        yield check.func.__name__, check


CHECKS = [pair for pair in checks() if pair[0] not in ELSEWHERE]


@pytest.fixture(scope="module")
def estimator(platform, tmp_path_factory):
    """Of a customer of its own: the platform takes 60 orders an hour from each."""
    platform.workers(4)
    person = platform.person("estimators@example.org", "customer", Account.create())
    platform.fund(person.wallet.address)
    path = tmp_path_factory.mktemp("wallet") / "keystore.json"
    make_keystore(path, PASSPHRASE, key=person.wallet, iterations=2)
    wallet = Keystore(path, PASSPHRASE, platform.rpc_url)
    with DML(platform.url, person.call("POST", "keys", json={"name": "checks"})["key"]) as client:
        yield DMLClassifier(client, wallet=wallet, rounds=1, random_state=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "check"), CHECKS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(CHECKS)])
def test_scikit_learns_check(estimator, name, check):
    if name in TINY:
        with pytest.raises(Refunded, match="of at least 10 samples"):
            check(clone(estimator))
    else:
        check(clone(estimator))


def test_what_is_excepted_is_still_a_check_of_scikit_learn():
    assert {name for name, _ in checks()} >= TINY | ELSEWHERE


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
