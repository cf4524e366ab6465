"""The committed compiler output is what the sources compile to."""

from __future__ import annotations

import subprocess

import pytest

from contracts.chain import artifact
from contracts.devchain import ROOT


@pytest.mark.skipif(not (ROOT / "node_modules" / "solc").exists(), reason="npm packages are not installed: npm ci")
def test_the_committed_files_equal_a_fresh_compile() -> None:
    command = ["node", "contracts/build.mjs", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["DMLToken", "DMLEscrow"])
def test_the_code_fits_a_chain(name: str) -> None:
    """EIP-170: 24,576 bytes."""
    assert len(artifact(name)["runtime"]) // 2 - 1 <= 24_576


def test_every_external_function_is_described() -> None:
    """NatSpec: whoever reads the contract on an explorer has nothing else."""
    text = (ROOT / "contracts" / "sol" / "DMLEscrow.sol").read_text()
    lines = text.splitlines()
    entries = {entry["name"] for entry in artifact("DMLEscrow")["abi"] if entry["type"] == "function"}
    for number, line in enumerate(lines):
        name = line.strip().removeprefix("function ").split("(")[0]
        if line.startswith("    function ") and name in entries:
            before = lines[number - 1].strip()
            assert before == "*/" or before.startswith("/// @notice"), f"{name} has no NatSpec"
