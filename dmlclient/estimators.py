"""scikit-learn's estimators: `fit` orders, pays, uploads and waits; `predict` runs here, on the model that came back.

Needs Keras and scikit-learn: pip install "dml-client[sklearn]".
"""

import tempfile
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from dmlclient.client import DML
from dmlclient.records import Ticket
from dmlclient.wallet import Keystore

MODEL = "model.keras"
Array = np.ndarray[Any, np.dtype[Any]]


class _Trained(BaseEstimator):  # type: ignore[misc]
    """client: by default what `dml login` has kept. wallet: pays; without it the page is named on which `payer` pays. max_price: DML.
    options: the training's, by name, as the API has them. random_state: the seed.

    Pickled without client and wallet, which hold secrets: what was fitted predicts all the same.
    """

    ticket_: Ticket
    model_: bytes

    def __init__(
        self,
        client: DML | None = None,
        *,
        wallet: Keystore | None = None,
        payer: str = "",
        max_price: Decimal | str | int | float | None = None,
        rounds: int = 10,
        options: Mapping[str, Any] | None = None,
        random_state: int | None = None,
    ) -> None:
        self.client = client
        self.wallet = wallet
        self.payer = payer
        self.max_price = max_price
        self.rounds = rounds
        self.options = options
        self.random_state = random_state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None, "wallet": None}

    def _train(self, x: Array, y: Array, **more: Any) -> None:
        client = self.client or DML.configured()
        options = {"rounds": self.rounds, "seed": self._seed(), **more, **(self.options or {})}
        job = client.train((x, y), wallet=self.wallet, payer=self.payer, max_price=self.max_price, **options)
        with tempfile.TemporaryDirectory() as folder:
            result = job.result(folder)
            self.model_ = Path(result.files[MODEL]).read_bytes()
        self.ticket_ = result.ticket

    def _seed(self) -> int | None:
        if isinstance(self.random_state, np.random.RandomState):
            return int(self.random_state.randint(2**31 - 1))
        return None if self.random_state is None else int(self.random_state)

    def _outputs(self, X: Any) -> Array:
        check_is_fitted(self, "model_")
        x = validate_data(self, X, reset=False, dtype=np.float32)
        return np.asarray(_opened(self.model_).predict(x, verbose=0))


class DMLClassifier(ClassifierMixin, _Trained):  # type: ignore[misc]
    """A classifier that is trained on DML. At least 10 samples a class; a fifth is held out by the platform to measure with."""

    classes_: Array

    def fit(self, X: Any, y: Any) -> Self:
        x, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("A classifier can't be trained when only one class is present.")
        self._train(x, codes)
        return self

    def predict_proba(self, X: Any) -> Array:
        """(n, classes)"""
        return self._outputs(X)

    def predict(self, X: Any) -> Array:
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])


class DMLRegressor(RegressorMixin, _Trained):  # type: ignore[misc]
    """A regressor that is trained on DML, where the platform takes regression (`task`). At least 20 samples, of which a fifth is held out."""

    def fit(self, X: Any, y: Any) -> Self:
        x, y = validate_data(self, X, y, dtype=np.float32, y_numeric=True, ensure_min_samples=2)
        self._train(x, np.asarray(y, np.float32), task="regression")
        return self

    def predict(self, X: Any) -> Array:
        return self._outputs(X).ravel()


@lru_cache(maxsize=4)
def _opened(model: bytes) -> Any:
    """The Keras model in a file's bytes. Not kept in the estimator, which predicting must not change."""
    from keras.saving import load_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(model)
        return load_model(path)
