"""Averaging, pure NumPy: arrays in, arrays out. TensorFlow is not needed to add numbers."""

from dmlworker.aggregation.average import blocks, fedavg
from dmlworker.aggregation.gate import check
from dmlworker.aggregation.optimizers import OPTIMIZERS, step
from dmlworker.aggregation.rounds import end_of
from dmlworker.weights import MalformedUpdate

__all__ = ["OPTIMIZERS", "MalformedUpdate", "blocks", "check", "end_of", "fedavg", "step"]
