"""The model in other formats: TensorFlow's SavedModel (zipped), TFLite and ONNX, each opened again and compared before it counts.

    python -m dmlworker.exports FOLDER FORMAT [FORMAT …]

FOLDER holds model.keras, and rows.npy with some samples as numbers. A converter may crash, leak or never end: so this is a process of its
own, which says of each format, in a line of JSON, what became of it.

SavedModel takes what model.keras takes. TFLite and ONNX know no text: of a table with more than plain numbers they hold the part behind the
encoding, which `delivered/rows.py` does in NumPy.
"""

import json
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlworker import rawmodel

if TYPE_CHECKING:
    import keras

FILES = {"SavedModel": "model.savedmodel.zip", "TFLite": "model.tflite", "ONNX": "model.onnx"}
SECONDS = 180
"""For the process, at most; it is started again for the formats that it did not come to."""
MEMORY = 6 * 2**30
"""Bytes for the process, at most."""
OPSET = 18
"""Of ONNX: from 2022, so that what is somewhat old reads it, too."""
_BLANK_ROWS = 3
_ENVIRONMENT = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}


class _Differs(Exception):
    """What was made answers otherwise than the model."""


def export(folder: Path, rows: np.ndarray, formats: Sequence[str] = tuple(FILES)) -> dict[str, str]:
    """Makes those of FILES out of model.keras in `folder`; gives for each format that there is not, the reason. rows (n, ...): samples as
    numbers, to compare with."""
    np.save(folder / "rows.npy", rows.astype(np.float32))
    left_out: dict[str, str] = {}
    waiting = list(formats)
    while waiting:
        said = _told(folder, waiting)
        left_out |= {name: reason for name, reason in said.items() if reason}
        waiting = [name for name in waiting if name not in said]
    for name in left_out:
        (folder / FILES[name]).unlink(missing_ok=True)
    (folder / "rows.npy").unlink()
    return left_out


def _told(folder: Path, names: list[str]) -> dict[str, str]:
    """By format, why there is none, or nothing: of all `names`, or of those up to the one at which the process ended."""
    command = [sys.executable, "-m", "dmlworker.exports", str(folder), *names]
    with (folder / "said").open("w+b") as said:
        try:
            done = subprocess.run(
                command, stdout=said, stderr=subprocess.DEVNULL, timeout=SECONDS, check=False, env=_ENVIRONMENT
            )
            fate = f"the conversion ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            fate = f"the conversion took more than {SECONDS} seconds"
        said.seek(0)
        found = dict(json.loads(line) for line in said if line.startswith(b'["'))
    (folder / "said").unlink()
    missing = next((name for name in names if name not in found), None)
    return found | ({missing: fate} if missing else {})


# --- In the process of its own ----------------------------------------------------------------------------------------
def main(folder: Path, names: list[str]) -> None:
    import keras

    os.nice(10)  # nobody waits for it: trainings and audits go first
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    rows = np.load(folder / "rows.npy")
    for name in names:
        print("\n" + json.dumps([name, _reason(name, model, rows, folder / FILES[name])]), flush=True)


def _reason(name: str, model: "keras.Model", rows: np.ndarray, path: Path) -> str:
    """Why there is no file at `path`; empty if there is."""
    try:
        _MAKERS[name](model, rows, path)
    except _Differs as error:
        return str(error)
    except Exception as error:  # converters raise what they like
        return f"it can't be converted ({type(error).__name__}: {error!s:.200})"
    return ""


def _saved_model(model: "keras.Model", rows: np.ndarray, path: Path) -> None:
    import tensorflow as tf

    given = _blank(model) if rawmodel.is_raw(model) else rows
    with TemporaryDirectory(dir=path.parent) as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        opened = tf.saved_model.load(folder)
        _compare(model, given, np.asarray(opened.serve(given)))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for part in sorted(Path(folder).rglob("*")):
                file.write(part, part.relative_to(folder))


def _blank(model: "keras.Model") -> dict[str, Any]:
    """Rows with nothing in them, for a model that takes raw columns."""
    import tensorflow as tf

    empty = {"string": "", "float32": float("nan")}
    return {each.name: tf.constant([[empty[each.dtype]] * each.shape[1]] * _BLANK_ROWS) for each in model.inputs}


def _tflite(model: "keras.Model", rows: np.ndarray, path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    core = rawmodel.core_of(model)
    with _plain_loops(core):
        core.export(path, format="litert", verbose=False)
    runner = Interpreter(str(path)).get_signature_runner()
    [name] = runner.get_input_details()
    [found] = runner(**{name: rows}).values()
    _compare(core, rows, found)


def _onnx(model: "keras.Model", rows: np.ndarray, path: Path) -> None:
    """By way of a frozen graph: Keras' own way takes the constants of a Normalization for inputs."""
    import onnxruntime
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    core = rawmodel.core_of(model)
    signature = [tf.TensorSpec((None, *core.input_shape[1:]), tf.float32, name="rows")]
    called = tf.function(lambda rows: core(rows, training=False), input_signature=signature).get_concrete_function()
    # Loops stay loops: taken apart into jumps, tf2onnx would write what no runtime opens.
    frozen = convert_variables_to_constants_v2(called, lower_control_flow=False, aggressive_inlining=True)
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (frozen.inputs, frozen.outputs))
    graph = frozen.graph.as_graph_def()
    names: dict[str, Any] = {"input_names": inputs, "output_names": outputs}
    tf2onnx.convert.from_graph_def(
        graph, **names, opset=OPSET, output_path=path, custom_op_handlers={"Erfc": (_erfc, [])}
    )
    session = onnxruntime.InferenceSession(path)
    _compare(core, rows, session.run(None, {inputs[0]: rows})[0])


_MAKERS: dict[str, Callable[["keras.Model", np.ndarray, Path], None]] = {
    "SavedModel": _saved_model,
    "TFLite": _tflite,
    "ONNX": _onnx,
}


def _compare(model: "keras.Model", given: Any, found: np.ndarray) -> None:
    wanted = np.asarray(model(given, training=False))
    if not np.allclose(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise _Differs("what was made of it answers otherwise than the model")


# --- What the converters lack -----------------------------------------------------------------------------------------
@contextmanager
def _plain_loops(model: "keras.Model") -> Iterator[None]:
    """Meanwhile its recurrent layers go from step to step by what TFLite has itself: Keras keeps what comes out in a TensorList, which
    TFLite has for batches of one size only. It can be converted so, not called."""
    import keras

    found = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    for layer in found:
        layer.inner_loop = partial(_loop, layer)
    try:
        yield
    finally:
        for layer in found:
            del layer.inner_loop


def _loop(layer: Any, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> tuple[Any, Any, Any]:
    """In place of `inner_loop` of Keras' RNN: (last output, all outputs, states) of sequences (n, steps, d). What comes out of a step is the first
    of the new states; a step that is masked changes none. mask: (n, steps)."""
    import keras
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice

    steps, units = sequences.shape[1], layer.units
    rows = tf.transpose(sequences, (1, 0, 2))
    present = None if mask is None else tf.transpose(keras.tree.flatten(mask)[0])[:, :, None]
    before = keras.tree.flatten(initial_state)

    def go(step: Any, outputs: Any, *states: Any) -> tuple[Any, ...]:
        at = steps - 1 - step if layer.go_backwards else step
        _, new = layer.cell(tf.gather(rows, at), list(states))
        new = keras.tree.flatten(new)
        here = None if present is None else tf.gather(present, at)
        if here is not None:
            new = [tf.where(here, now, old) for now, old in zip(new, states, strict=True)]
        if layer.return_sequences:
            shown = tf.where(here, new[0], 0.0) if here is not None and layer.zero_output_for_mask else new[0]
            outputs = xla_dynamic_update_slice(outputs, shown[None], tf.stack([step, 0, 0]))
            outputs.set_shape((steps, None, units))
        return step + 1, outputs, *new

    kept = tf.zeros((steps if layer.return_sequences else 1, tf.shape(rows)[1], units))
    _, outputs, *states = tf.while_loop(lambda step, *_: step < steps, go, (tf.constant(0), kept, *before))
    return states[0], tf.transpose(outputs, (1, 0, 2)), states


def _erfc(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """For tf2onnx, of a GELU: 1 - erf(x)."""
    about = {"dtypes": [graph.get_dtype(node.output[0])], "shapes": [graph.get_shape(node.output[0])]}
    erf = graph.make_node("Erf", list(node.input), **about)
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    graph.remove_node(name)
    graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=node.output, name=name, **about)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
