"""The referee: Federated Averaging by TensorFlow Federated, in its own environment, without a line of ours.

    .bench/tff/bin/python bench/tff_side.py --dtype float32 --cores 2 IN.npz OUT.npz [IN.npz OUT.npz ...]

IN, written by verify_tff.py: model ("mlp" or "cnn"), rate, batch, scale (of the pixels), start_0 ... (the weights), rounds,
proximal (FedProx's mu; 0: Federated Averaging);
x_R_K, y_R_K: what shard K trains on in round R, in the order of training; holdout_x, holdout_y. OUT: weights_R_I, weight I
after round R (all counted from 0); loss and accuracy on the hold-out after each round.
"""

import argparse
import functools
import os

import numpy as np


def network(kind):
    """The net of McMahan et al. 2016 up to its logits, written down again by hand."""
    import tensorflow as tf

    layers = tf.keras.layers
    if kind == "mlp":
        body = [layers.Flatten(), layers.Dense(200, "relu"), layers.Dense(200, "relu")]
    else:
        body = [layers.Reshape((28, 28, 1))]
        for filters in (32, 64):
            body += [layers.Conv2D(filters, 5, padding="same", activation="relu"), layers.MaxPooling2D()]
        body += [layers.Flatten(), layers.Dense(512, "relu")]
    return tf.keras.Sequential([layers.Input((28, 28)), *body, layers.Dense(10)])


def averaging(kind, rate, dtype="float32", proximal=0.0):
    """TFF's learning process; the optimizers are its own SGD, with a server rate of 1. proximal: FedProx's mu, if it is to be that."""
    import tensorflow as tf
    import tensorflow_federated as tff

    tf.keras.backend.set_floatx(dtype)

    def model():
        return tff.learning.models.from_keras_model(
            network(kind),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            input_spec=(tf.TensorSpec((None, 28, 28), dtype), tf.TensorSpec((None,), tf.int32)),
        )

    algorithms = tff.learning.algorithms
    prox = functools.partial(algorithms.build_weighted_fed_prox, proximal_strength=proximal)
    return (prox if proximal else algorithms.build_weighted_fed_avg)(
        model,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(rate),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
        client_weighting=tff.learning.ClientWeighting.NUM_EXAMPLES,
    )


def begin(process, weights):
    """The process' first state, with these weights."""
    import tensorflow_federated as tff

    return process.set_model_weights(process.initialize(), tff.learning.models.ModelWeights(weights, []))


def batches(x, y, size):
    """A client's data, in its order."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def judge(kind, weights, x, y):
    """(mean cross-entropy, accuracy), by Keras."""
    import tensorflow as tf

    model = network(kind)
    model.set_weights(weights)
    model.compile(loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model.evaluate(x, y, batch_size=250, verbose=0)


def play(case, dtype):
    """All rounds of a case; what goes into OUT."""
    kind, scale, size = str(case["model"]), case["scale"].astype(dtype), int(case["batch"])
    start = [case[name].astype(dtype) for name in sorted((n for n in case if n.startswith("start_")), key=_number)]
    process = averaging(kind, float(case["rate"]), dtype, float(case["proximal"]))
    state, out, scores = begin(process, start), {}, []
    shards = sum(name.startswith("x_0_") for name in case)
    for number in range(int(case["rounds"])):
        data = [
            batches(case[f"x_{number}_{shard}"].astype(dtype) * scale, case[f"y_{number}_{shard}"], size)
            for shard in range(shards)
        ]
        state = process.next(state, data).state
        weights = [np.asarray(weight) for weight in process.get_model_weights(state).trainable]
        out |= {f"weights_{number}_{index}": weight for index, weight in enumerate(weights)}
        scores.append(judge(kind, weights, case["holdout_x"].astype(dtype) * scale, case["holdout_y"]))
    return out | {"loss": np.array(scores)[:, 0], "accuracy": np.array(scores)[:, 1]}


def _number(name):
    return int(name.rsplit("_", 1)[1])


def pin(cores):
    """Before TensorFlow is imported, which counts its threads by this; TFF's worker inherits it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("files", nargs="+", help="IN.npz OUT.npz ...")
    chosen = parser.parse_args()
    pin(chosen.cores)
    for source, target in zip(chosen.files[::2], chosen.files[1::2], strict=True):
        with np.load(source) as file:
            case = dict(file)
        np.savez(target, **play(case, chosen.dtype))


if __name__ == "__main__":
    main()
