"""The example notebooks, run as they are on a whole platform."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from dmlclient.tests.conftest import PASSPHRASE

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs" / "notebooks"
AT_LEAST = {"iris": "assert result.accuracy >= 0.9", "digits": "assert score >= 0.9"}


def test_all_notebooks_are_run():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(AT_LEAST)


@pytest.mark.parametrize("name", sorted(AT_LEAST))
def test_a_notebook_runs_and_learns(platform, key, keystore, tmp_path, monkeypatch, name):
    platform.workers(4)
    said = {"DML_URL": platform.url, "DML_KEY": key, "DML_RPC": platform.rpc_url, "DML_PASSPHRASE": PASSPHRASE}
    for variable, value in {**said, "DML_WALLET": str(keystore), "PYTHONPATH": str(FOLDER.parent.parent)}.items():
        monkeypatch.setenv(variable, value)
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)
    book.cells.append(nbformat.v4.new_code_cell(AT_LEAST[name]))
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
