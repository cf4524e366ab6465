"""Columns of text: what becomes of them, and the exported model that does the same to raw strings."""

import json
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlworker import datasets, models, rawmodel, trainer
from dmlworker.datasets import Encoder, text
from dmlworker.datasets.dataset import Raw
from dmlworker.protocol import Hyper
from dmlworker.tests.test_encoding import LOAD, columns, read, table

ODD = [
    "",
    "good",
    "GOOD, good; Good!",
    "  good\tbad\nnever-seen \x0b plot\x0cplot\r",
    "Ärger ärger ÄRGER I İ ß",
    "👍🏽 good 👨‍👩‍👧 bad",
    string.printable,
    string.punctuation,
    "non\u00a0breaking\u2003space\u3000bad\x1cgood\x85bad",
    "[UNK] <oov> none null ? -",
    "word " * 5000,
    "x" * 100_000,
    "电影很好看",
    "e\u0301 \u200bgood\ufeff",
]


def reviews(rows: int = 200) -> str:
    random = np.random.Generator(np.random.PCG64(1))
    filler = ["The", "plot", "was", "an", "actor", "film,", "scene", "music"]
    lines = []
    for row in range(rows):
        words = [
            *random.choice(filler, random.integers(4, 12)),
            ["bad", "good", "Great!"][row % 2 * (1 + row % 3 // 2)],
        ]
        lines.append(f'"{" ".join(random.permutation(words))}",{["no", "yes"][row % 2]}')
    return table("review,liked", *lines)


def outputs(encoder: Encoder, rows: list[list[str]]) -> np.ndarray:
    """What the exported model's preprocessing makes of raw rows."""
    import keras

    core = keras.Sequential([keras.Input((len(encoder.marks),)), keras.layers.Activation("linear")], name="mlp")
    inputs = {name: keras.ops.convert_to_tensor(cells) for name, cells in columns(encoder, rows).items()}
    return np.asarray(rawmodel.of(core, encoder)(inputs))


def test_a_table_of_nothing_but_text_becomes_tokens(tmp_path: Path) -> None:
    data = read(tmp_path, reviews())
    assert [raw.kind for raw in data.raw] == ["text"] and data.left_out == ()
    train, holdout, encoder = datasets.encoded(*datasets.split(data, 1))
    assert encoder and encoder.tokens == len(encoder.features[0].values) + 2
    assert train.x.dtype == np.uint16 and train.x.shape == (160, encoder.features[0].length)
    assert holdout.x.max() < encoder.tokens and {"good", "bad", "great", "film"} <= set(encoder.features[0].values)
    blob = datasets.dump(train.x, train.y)
    np.testing.assert_array_equal(datasets.load(blob)[0], train.x)


def test_words_of_the_rows_held_out_are_not_learnt(tmp_path: Path) -> None:
    rows = [f"some words here number{n % 40} id{n},{n % 2}" for n in range(200)]
    data = read(tmp_path, table("a,y", *rows))
    kept = np.array([n for n in range(200) if n % 40 != 7])
    encoder = Encoder.fit(data.take(kept))
    assert "number7" not in encoder.features[0].values and "number8" in encoder.features[0].values
    assert encoder.row(["number7 words"])[0] == text.UNKNOWN


def test_the_length_is_that_of_most_texts(tmp_path: Path) -> None:
    rows = [f"{'word ' * (3 + n % 100)} {n},{n % 2}" for n in range(1000)]
    assert Encoder.fit(read(tmp_path, table("a,y", *rows))).features[0].length == 99
    long = [f"{'word ' * 900}{n},{n % 2}" for n in range(40)]
    assert Encoder.fit(read(tmp_path, table("a,y", *long))).features[0].length == text.MAX_LENGTH


@pytest.mark.parametrize("more", ["", ",size"])
def test_the_exported_model_reads_odd_text_as_the_encoder_does(tmp_path: Path, more: str) -> None:
    lines = [line.rpartition(",") for line in reviews().splitlines()[1:]]
    content = table(
        f"review{more},liked", *(f"{a},{n},{b}" if more else f"{a},{b}" for n, (a, _, b) in enumerate(lines))
    )
    encoder = Encoder.fit(read(tmp_path, content))
    rows = [[odd, "7"][: 1 + bool(more)] for odd in ODD]
    np.testing.assert_array_equal(outputs(encoder, rows), np.stack([encoder.row(row) for row in rows]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60), min_size=1, max_size=8
    )
)
def test_any_text_is_cut_as_keras_cuts_it(texts: list[str]) -> None:
    import keras

    for split in (text.WHITESPACE, text.CHARACTER):
        values = text.frequent([(each, 2) for each in texts], split, 1000) or ("a",)
        layer = keras.layers.TextVectorization(split=split, output_sequence_length=9, vocabulary=list(values))
        wanted = np.asarray(layer(keras.ops.convert_to_tensor(texts)))
        np.testing.assert_array_equal([text.Vocabulary(values, split).ids(each, 9) for each in texts], wanted)


def test_scripts_without_spaces_are_cut_at_each_character(tmp_path: Path) -> None:
    rows = [f"这部电影{'很好看' if n % 2 else '不好'}第{n}次,{n % 2}" for n in range(60)]
    encoder = Encoder.fit(read(tmp_path, table("a,y", *rows)))
    [feature] = encoder.features
    assert feature.split == text.CHARACTER and "很" in feature.values
    cells = [["这部电影很好看"], [""], ["👍 ok"], ["不" * 600]]
    np.testing.assert_array_equal(outputs(encoder, cells), np.stack([encoder.row(row) for row in cells]))


def mixed(rows: int = 300) -> str:
    lines = []
    for n in range(rows):
        words = f"{'Great' if n % 2 else 'Awful'}, it said in note {n}"
        lines.append(f'"{words if n % 10 else ""}",{n % 7 if n % 9 else ""},{"ab"[n % 3 % 2]},{n % 2}')
    return table("note,size,kind,y", *lines)


def test_text_beside_other_columns_becomes_its_frequent_words(tmp_path: Path) -> None:
    data = read(tmp_path, mixed())
    assert [raw.kind for raw in data.raw] == ["text", "number", "category"]
    encoder = Encoder.fit(data)
    [note, *_] = encoder.features
    assert note.kind == "text" and {"great", "awful", "said"} <= set(note.values) and "17" not in note.values
    assert encoder.tokens == 0 and encoder.marks[: 1 + len(note.values)].all()
    found = dict(zip(note.values, encoder.row(["GREAT stuff!", "1", "a"])[1:], strict=False))
    assert (found["great"], found["awful"]) == (1, 0) and encoder.row(["great", "1", "a"])[0] == 0
    assert Encoder.from_json(json.loads(json.dumps(encoder.json()))) == encoder
    for index in range(20):
        np.testing.assert_array_equal(encoder.row(datasets.cells_of(data, index)), encoder.encode(data).x[index])


def test_a_model_of_text_and_numbers_learns_and_takes_raw_rows(tmp_path: Path) -> None:
    data = read(tmp_path, mixed())
    train, holdout, encoder = datasets.encoded(*datasets.split(data, 1))
    assert encoder
    spec = models.spec(models.build(train.x.shape[1:], 2, "mlp", models.statistics(train.x, encoder.marks)))
    weights = trainer.train(spec, trainer.initial_weights(spec, 1), train.x, train.y, Hyper(10, 10, 0.05, 3))
    assert trainer.evaluate(spec, weights, holdout.x, holdout.y).accuracy > 0.85
    trainer.export(spec, weights, tmp_path, encoder)
    rows = [["Great", "1", "a"], ["", "", "b"], ["awful 👍", "3", "never seen"]]
    (tmp_path / "rows.json").write_text(json.dumps(columns(encoder, rows)))
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = trainer.predict(spec, weights, np.stack([encoder.row(row) for row in rows]))
    np.testing.assert_allclose(json.loads(done.stdout.partition("FOUND")[2]), wanted, atol=1e-5)


def test_names_and_codes_are_no_text(tmp_path: Path) -> None:
    data = read(tmp_path, table("name,n,y", *(f"passenger {n},{n},{n % 2}" for n in range(40)), ",1,1"))
    assert data.left_out == (("name", "nearly every value is another"),)


def test_long_texts_are_shown_cut_and_counted_whole(tmp_path: Path) -> None:
    data = read(tmp_path, table("a,n,y", *(f"{'many words ' * 50}{n},{n},{n % 2}" for n in range(40))))
    facts = datasets.describe(data)
    assert [column.kind for column in facts.details] == ["text", "whole numbers"]
    assert max(len(cell) for row in facts.preview for cell in row) <= 81


def test_texts_that_are_too_long_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmlworker.datasets.kinds.MAX_CHARACTERS", 500)
    with pytest.raises(datasets.DatasetError, match="too long together"):
        read(tmp_path, reviews())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=20, max_size=80), st.integers(0, 2**32 - 1))
def test_no_part_has_longer_texts_or_more_tokens_than_the_check_says(lengths: list[int], seed: int) -> None:
    """Empty texts are no texts; the longest of the others may all be in the part."""
    words = [" ".join(f"w{(row * step) % 7}" for step in range(length)) for row, length in enumerate(lengths)]
    values = tuple(sorted({each for each in words if each})) or ("x",)
    x = np.array([values.index(each) if each in values else np.nan for each in words], np.float32)[:, None]
    raw, y = (Raw("words", "text", values),), np.zeros(len(words), np.int32)
    data = datasets.Dataset(x, y, ("a",), ("words",), "csv", raw=raw)
    n = datasets.training_samples(len(data))
    checked = Encoder.fit(data, n)
    by_length = np.argsort(lengths, kind="stable")
    for part in (by_length[-n:], np.random.Generator(np.random.PCG64(seed)).permutation(len(data))[:n]):
        found = Encoder.fit(data.take(part))
        assert len(found.marks) <= len(checked.marks) and found.tokens <= checked.tokens
