"""Averaging, pure NumPy: arrays in, arrays out. TensorFlow is not needed to add numbers."""

from dmlworker.weights import MalformedUpdate
from training.aggregation.average import blocks, fedavg
from training.aggregation.gate import check
from training.aggregation.optimizers import OPTIMIZERS, step
from training.aggregation.rules import RULES, aggregate, gram

__all__ = ["OPTIMIZERS", "RULES", "MalformedUpdate", "aggregate", "blocks", "check", "fedavg", "gram", "step"]
