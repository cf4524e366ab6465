"""Averaging, pure NumPy: arrays in, arrays out. TensorFlow is not needed to add numbers."""

from dmlworker.aggregation.average import blocks, fedavg
from dmlworker.aggregation.gate import check
from dmlworker.aggregation.optimizers import OPTIMIZERS, step
from dmlworker.aggregation.rounds import How, end_of
from dmlworker.aggregation.rules import RULES, aggregate, gram
from dmlworker.weights import MalformedUpdate

__all__ = [
    "OPTIMIZERS",
    "RULES",
    "How",
    "MalformedUpdate",
    "aggregate",
    "blocks",
    "check",
    "end_of",
    "fedavg",
    "gram",
    "step",
]
