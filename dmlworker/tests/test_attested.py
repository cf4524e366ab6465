"""How a worker gets a report from its processor, presents it, and what it does where that fails.

No processor of this kind is here: the kernel's interfaces are stood in for by a folder and a call, as their documentation has them."""

import asyncio
import ctypes
import struct
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dmlworker import __main__, attested, snp
from dmlworker.attested import Attested
from dmlworker.client import Refused, Settings, Worker
from dmlworker.protocol import Commit, Hello, attestation_data, session_of
from dmlworker.snp import AttestationError
from dmlworker.tests.platform import KEY, Platform, serving
from dmlworker.tests.test_client import Lines, _quick, honest, offered, run  # noqa: F401

GENUINE = Path(__file__).parents[2] / "providers" / "tests" / "snp"
REPORT = bytes.fromhex((GENUINE / "gcp-milan-v5.hex").read_text())
CERTIFICATE = (GENUINE / "gcp-milan-v5.pem").read_bytes()
DATA = bytes(range(64))
GUID = bytes.fromhex("63da758de6644564adc5f4b93be8accd")


# --- The kernel's interfaces ------------------------------------------------------------------------------------------
def table(*entries: tuple[bytes, bytes]) -> bytes:
    """Certificates as a host gives them."""
    head, body = b"", b""
    for guid, data in entries:
        head += struct.pack("<16sII", guid, 24 * (len(entries) + 1) + len(body), len(data))
        body += data
    return head + bytes(24) + body


class Configfs:
    """A kernel's folder: what is made in it has files in it."""

    def __init__(self, root: Path, provider: str = "sev_guest", auxiliary: bytes | None = None) -> None:
        self.root, self.files = root, {"provider": provider.encode() + b"\n", "outblob": REPORT}
        self.files |= {} if auxiliary is None else {"auxblob": auxiliary}

    def make(self, root: Path) -> str:
        request = root / "request"
        request.mkdir()
        for name, data in self.files.items():
            (request / name).write_bytes(data)
        return str(request)

    def read(self) -> tuple[bytes, bytes]:
        return snp._from_tsm(DATA, self.root, self.make)


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was asked for in folders that were removed; a kernel takes the files along with them."""
    asked: list[bytes] = []
    remove = Path.rmdir

    def rmdir(folder: Path) -> None:
        asked.extend(file.read_bytes() for file in folder.glob("inblob"))
        for file in folder.iterdir():
            file.unlink()
        remove(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    return asked


def test_a_report_by_configfs_with_the_hosts_certificate(tmp_path: Path, emptied: list[bytes]) -> None:
    found = Configfs(tmp_path, auxiliary=table((b"\1" * 16, b"another"), (GUID, CERTIFICATE))).read()
    assert found == (REPORT, CERTIFICATE)
    assert emptied == [DATA] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("auxiliary", [None, b"", bytes(24), table((b"\1" * 16, b"another"))])
def test_a_host_may_give_no_certificate(tmp_path: Path, emptied: list[bytes], auxiliary: bytes | None) -> None:
    assert Configfs(tmp_path, auxiliary=auxiliary).read() == (REPORT, b"")


def test_another_kind_of_processor_is_named_and_asked_nothing(tmp_path: Path, emptied: list[bytes]) -> None:
    with pytest.raises(AttestationError, match="attests by tdx_guest"):
        Configfs(tmp_path, "tdx_guest").read()
    assert emptied == [] and not list(tmp_path.iterdir())


def test_a_report_by_the_older_device(tmp_path: Path) -> None:
    def ioctl(file: int, code: int, call: bytearray) -> None:
        version, request, answer, _ = struct.unpack("<B7xQQQ", call)
        assert (version, code, ctypes.string_at(request, 96)) == (1, 0xC0205300, DATA + bytes(32))
        ctypes.memmove(answer, struct.pack("<II24x", status, 1184) + REPORT, 32 + 1184)

    device, status = tmp_path / "sev-guest", 0
    device.touch()
    assert snp._from_device(DATA, device, ioctl) == REPORT
    status = 0x16
    with pytest.raises(AttestationError, match="status 22"):
        snp._from_device(DATA, device, ioctl)


def test_a_file_in_the_devices_place_gives_no_report(tmp_path: Path) -> None:
    (tmp_path / "sev-guest").touch()
    with pytest.raises(AttestationError, match="The processor gave no report"):
        snp.evidence(DATA, tmp_path / "tsm", tmp_path / "sev-guest")


def test_where_there_is_no_such_processor_the_worker_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--server", "http://localhost:1", "--key", "k", "--cache", str(tmp_path)]
    for command in (["attest"], [*options, "--attestation", "snp"]):
        assert __main__.main(command) == 1
        assert "This computer offers no SEV-SNP report" in capsys.readouterr().err


# --- The certificate --------------------------------------------------------------------------------------------------
def test_without_a_certificate_it_says_where_amd_has_it(tmp_path: Path) -> None:
    with pytest.raises(AttestationError, match=r"https://kdsintf.amd.com/vcek/v1/Milan/980cf7b6\w+\?blSPL=04&"):
        Attested(ask=lambda data: (REPORT, b""))
    with pytest.raises(AttestationError, match="Can't read"):
        Attested(tmp_path / "none", ask=lambda data: (REPORT, b""))
    (tmp_path / "vcek.pem").write_bytes(CERTIFICATE)
    assert Attested(tmp_path / "vcek.pem", ask=lambda data: (REPORT, b""))


def test_what_is_shown_is_what_an_admin_needs() -> None:
    text = attested.shown(snp.parse(REPORT), b"")
    assert "b747d55452e0b9e9079770a49e397c5e" in text and "EPYC Milan" in text and "Debug mode:   off" in text
    old = snp.parse(bytes.fromhex((GENUINE / "debug-milan-v2.hex").read_text()))
    assert "(not told)" in attested.shown(old, CERTIFICATE) and "on: the host can read" in attested.shown(old, b"x")


# --- The worker -------------------------------------------------------------------------------------------------------
def working(platform: Platform, cache: Path, asked: list[bytes]) -> tuple[Worker, Attested, Lines]:
    def ask(data: bytes) -> tuple[bytes, bytes]:
        asked.append(data)
        return REPORT, CERTIFICATE

    proof, lines = Attested(ask=ask), Lines()
    return Worker(Settings(platform.url, KEY, cache, 1, attested=proof), lines), proof, lines


def until(seconds: float) -> tuple[int, dict[str, str]]:
    return 200, {"expires": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()}


def test_it_attests_before_it_connects_again_in_time_and_shows_its_secret_to_the_platform_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attested, "SOONEST", 0.05)

    async def scenario() -> None:
        async with serving() as platform:
            asked: list[bytes] = []
            worker, proof, lines = working(platform, tmp_path, asked)
            platform.attested = [(503, {}), until(1), until(3600)]
            platform.store = platform.url.removeprefix("http://").replace("127.0.0.1", "localhost")
            offered(platform)
            running = asyncio.create_task(worker.run())
            commit = await platform.hears(Commit)
            assert platform.blobs[commit.sha256] == honest()
            while len(platform.attestations) < 3:
                await asyncio.sleep(0.01)
            worker.stop()
            await running
            session = session_of(proof.secret)
            assert set(asked[1:]) == {attestation_data(worker._settings.site, "n", "0x1", session)}
            assert b64decode(platform.attestations[0]["report"]) == REPORT
            assert {told["session"] for told in platform.attestations} == {session}
            assert set(platform.secrets) == {proof.secret}
            assert platform.shown_to_store == ["", "", ""]
            assert "Can't attest" in lines.text and "Attested; again in" in lines.text

    run(scenario)


def test_a_platform_that_does_not_believe_it_is_told_of_with_its_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            worker, *_ = working(platform, tmp_path, [])
            platform.attested = [(422, {"detail": "The measurement 00 is not on the platform's list."})]
            with pytest.raises(Refused, match="Not attested: The measurement 00 is not on the platform's list"):
                await worker.run()
            assert not platform.count(Hello)

    run(scenario)


def test_a_platform_by_another_name_is_presented_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as platform:
            worker, *_ = working(platform, tmp_path, [])
            platform.url = "http://another.example.org"
            with pytest.raises(Refused, match="calls itself another.example.org"):
                await worker.run()
            assert not platform.attestations

    run(scenario)
