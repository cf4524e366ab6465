"""Flower's client side in bench/flower.py. It trains with our own worker's code, so that engines are compared and not their
arithmetic, or does next to nothing, as bench/idle_worker.py does."""

from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    start = message.content["arrays"].to_numpy_ndarrays()
    round_, shard = message.content["config"]["server-round"], context.node_config["partition-id"]
    if context.run_config["idle"]:
        end, samples = [array + np.float32(1e-4) for array in start], 1
    else:
        end, samples = learned(start, Path(context.run_config["case"]), round_, shard)
    content = {"arrays": ArrayRecord(end), "metrics": MetricRecord({"num-examples": samples})}
    return Message(RecordDict(content), reply_to=message)


def learned(start: list[np.ndarray], file: Path, round_: int, shard: int) -> tuple[list[np.ndarray], int]:
    """The weights after an epoch over a shard, on one thread as our workers have, and the number of its samples."""
    from bench.case import Case
    from dmlworker import trainer
    from dmlworker.protocol import Hyper

    trainer.threads(1)
    case = Case.load(file)
    x, y = case.shards[shard]
    return trainer.train(case.spec, start, x, y, Hyper(1, 20, 0.1, int(case.seeds[round_ - 1, shard]))), len(y)
