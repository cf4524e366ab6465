"""What Flower's server strategies make of a few rounds: the reference of training/tests/test_optimizers.py.

Run in an environment of its own, as Flower's dependencies are not ours; the answers are kept in the repository:

    python -m venv /tmp/flower && /tmp/flower/bin/pip install flwr==1.41.0
    /tmp/flower/bin/python bench/flower_optimizers.py > training/tests/flower_optimizers.json
"""

import json
import sys
from importlib.metadata import version

import numpy as np
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAvg, FedAvgM, FedYogi

ROUNDS = 4
SAMPLES = [100, 300, 50]


def strategies(start: Parameters) -> dict[str, FedAvg]:
    common = {"eta": 0.01, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3, "initial_parameters": start}
    return {
        "fedavg": FedAvg(initial_parameters=start),
        "fedavgm": FedAvgM(initial_parameters=start, server_learning_rate=1.0, server_momentum=0.9),
        "fedyogi": FedYogi(**common),
    }


def locals_of(weights: list[np.ndarray], number: int) -> list[list[np.ndarray]]:
    """Updates of three workers: the weights and a change that depends on nothing but the round and the worker."""
    found = []
    for worker in range(len(SAMPLES)):
        random = np.random.Generator(np.random.PCG64(10 * number + worker))
        found.append([array + random.normal(size=array.shape).astype(np.float32) / 10 for array in weights])
    return found


def rounds(strategy: FedAvg, weights: list[np.ndarray]) -> list[list[list[float]]]:
    history = []
    for number in range(1, ROUNDS + 1):
        results = []
        for local, samples in zip(locals_of(weights, number), SAMPLES, strict=True):
            status = Status(Code.OK, "")
            results.append((None, FitRes(status, ndarrays_to_parameters(local), samples, {})))
        parameters, _ = strategy.aggregate_fit(number, results, [])
        weights = parameters_to_ndarrays(parameters)
        history.append([array.astype(float).ravel().tolist() for array in weights])
    return history


def main() -> None:
    start = [np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), np.zeros(2, np.float32)]
    found = {name: rounds(one, start) for name, one in strategies(ndarrays_to_parameters(start)).items()}
    json.dump({"flwr": version("flwr"), "rounds": found}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
