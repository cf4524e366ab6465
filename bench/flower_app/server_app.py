"""Flower's server side in bench/flower.py: its FedAvg over all nodes. Writes the end weights and when each round ended."""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from bench.case import Case

app = ServerApp()


class AllOrNothing(FedAvg):
    """Stock FedAvg goes on without the nodes that fail; a measurement must not."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        if len(replies) < self.min_train_nodes or any(reply.has_error() for reply in replies):
            raise RuntimeError(f"round {server_round} was not trained by all nodes")
        return super().aggregate_train(server_round, replies)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    case, moments = Case.load(Path(config["case"])), []
    nodes = len(case.shards)
    result = AllOrNothing(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes).start(
        grid,
        ArrayRecord(case.start),
        num_rounds=config["rounds"],
        evaluate_fn=lambda number, arrays: moments.append(time.time()),  # called before the first round and after each
    )
    np.savez(config["end"], *result.arrays.to_numpy_ndarrays(), moments=moments)
