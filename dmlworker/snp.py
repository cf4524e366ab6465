"""AMD SEV-SNP attestation reports: how they are laid out, and how a guest asks its processor for one. Standard library only.

Offsets and names are those of the table "ATTESTATION_REPORT Structure" in AMD's "SEV Secure Nested Paging Firmware ABI
Specification" (publication 56860); numbers are little-endian. What a report proves is `providers/snp.py`'s to say.
"""

import ctypes
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

SIZE = 0x4A0
SIGNED = 0x2A0
"""Bytes that the signature is over: all before it."""
VERSIONS = (2, 3, 5)
ECDSA_P384_SHA384 = 1

Span = tuple[int, int]
_RESERVED: dict[int, tuple[Span, ...]] = {
    2: ((0x04C, 0x050), (0x188, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)),
    3: ((0x04C, 0x050), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x1F8, 0x2A0)),
    5: ((0x04C, 0x050), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0)),
}
_SIGNATURE_REST: tuple[Span, ...] = ((0x2D0, 0x2E8), (0x318, 0x4A0))
"""Of P-384 numbers, 48 bytes of R and of S at 0x2A0 and 0x2E8; the rest of their 72, and of the field, must be zero."""

PARTS: dict[str, dict[str, int]] = {
    "Milan": {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Genoa": {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Turin": {"fmc": 0, "boot_loader": 1, "tee": 2, "snp": 3, "microcode": 7},
}
"""By product, which byte of a TCB_VERSION is the security version of what (table "TCB_VERSION Structure")."""

DEBUG, MIGRATE_MA = 1 << 19, 1 << 18
"""Bits of POLICY: the host may read the guest's memory; a migration agent may move the guest."""
_POLICY_ONE, _POLICY_RESERVED = 1 << 17, ~((1 << 26) - 1)

VCEK, VLEK = 0, 1
"""SIGNING_KEY: the chip's own key, or one that AMD lends to a cloud provider."""


class AttestationError(ValueError):
    """A report, or what goes with it, that cannot be had or proves nothing. The text says why, to people."""


@dataclass(frozen=True)
class Report:
    """What of a report is looked at. `report_data`: 64 bytes of the guest's choice; `reported_tcb`: a TCB_VERSION."""

    version: int
    policy: int
    vmpl: int
    signing_key: int
    chip_masked: bool
    report_data: bytes
    measurement: bytes
    reported_tcb: bytes
    family: int
    model: int
    chip_id: bytes
    signed: bytes = field(repr=False)
    r: int = field(repr=False)
    s: int = field(repr=False)


def parse(data: bytes) -> Report:
    """Raises AttestationError for anything that is not exactly a report in a version known here."""
    _require(len(data) == SIZE, f"A report has {SIZE} bytes, this has {len(data)}.")
    version, policy = _number(data, 0x00, 4), _number(data, 0x08, 8)
    _require(version in VERSIONS, f"Reports of version {version} are not known, only {', '.join(map(str, VERSIONS))}.")
    for first, end in _RESERVED[version] + _SIGNATURE_REST:
        _require(not any(data[first:end]), f"Reserved bytes {first:#05x} to {end - 1:#05x} are not zero.")
    _require(
        bool(policy & _POLICY_ONE) and not policy & _POLICY_RESERVED,
        "Reserved bits of the policy are not as they must be.",
    )
    _require(_number(data, 0x34, 4) == ECDSA_P384_SHA384, "The report is not signed with ECDSA P-384 and SHA-384.")
    key = _number(data, 0x48, 4)
    _require(key < 1 << 5, "Reserved bits beside the signing key are not zero.")
    return Report(
        version=version,
        policy=policy,
        vmpl=_number(data, 0x30, 4),
        signing_key=key >> 2,
        chip_masked=bool(key & 2),
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        reported_tcb=data[0x180:0x188],
        family=data[0x188],
        model=data[0x189],
        chip_id=data[0x1A0:0x1E0],
        signed=data[:SIGNED],
        r=_number(data, 0x2A0, 48),
        s=_number(data, 0x2E8, 48),
    )


def tcb(version: bytes, product: str) -> tuple[int, ...]:
    """The security versions in a TCB_VERSION, in the order of `PARTS`. Raises AttestationError if its other bytes are not zero."""
    places = PARTS[product].values()
    rest = [value for place, value in enumerate(version) if place not in places]
    _require(not any(rest), f"This is no TCB version of {product}.")
    return tuple(version[place] for place in places)


def product(report: Report) -> str:
    """Of the processor, by CPUID, which reports have from version 3 on; empty if it is not told, or not known."""
    if report.family == 0x19 and report.model <= 0x0F:
        return "Milan"
    if report.family == 0x19 and (0x10 <= report.model <= 0x1F or 0xA0 <= report.model <= 0xAF):
        return "Genoa"
    return "Turin" if report.family == 0x1A and report.model <= 0x11 else ""


def certificate_url(report: Report, name: str) -> str:
    """Where AMD gives the certificate (VCEK) of the key that this report is signed with. name: the product."""
    levels = dict(zip(PARTS[name], tcb(report.reported_tcb, name), strict=True))
    short = {"fmc": "fmcSPL", "boot_loader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
    query = "&".join(f"{short[part]}={level:02}" for part, level in levels.items())
    chip = report.chip_id[:8] if name == "Turin" else report.chip_id
    return f"https://kdsintf.amd.com/vcek/v1/{name}/{chip.hex()}?{query}"


def _number(data: bytes, first: int, size: int) -> int:
    return int.from_bytes(data[first : first + size], "little")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AttestationError(otherwise)


# --- From the processor -----------------------------------------------------------------------------------------------
TSM = Path("/sys/kernel/config/tsm/report")
"""The kernel's interface from 6.7 on (Documentation/ABI/testing/configfs-tsm)."""
DEVICE = Path("/dev/sev-guest")
"""The older one, from 5.19 on (Documentation/virt/coco/sev-guest.rst)."""


def evidence(report_data: bytes, tsm: Path = TSM, device: Path = DEVICE) -> tuple[bytes, bytes]:
    """(report with these 64 bytes in it, the certificate of the key that signed it). The certificate is empty if the host gives none.
    Raises AttestationError where there is no processor that could be asked."""
    try:
        if tsm.is_dir():
            return _from_tsm(report_data, tsm)
        if device.exists():
            return _from_device(report_data, device), b""
    except OSError as error:
        raise AttestationError(f"The processor gave no report: {error.strerror or error}.") from error
    raise AttestationError(
        f"This computer offers no SEV-SNP report: there is neither {tsm} nor {device}. Attestation needs a confidential "
        "virtual machine on an AMD EPYC processor, with Linux 5.19 or newer in it, and the rights to ask."
    )


def _from_tsm(
    report_data: bytes, root: Path, make: Callable[[Path], str] = lambda root: mkdtemp(dir=root)
) -> tuple[bytes, bytes]:
    """A folder of one's own is a request of one's own: nobody else's question gets into it. make: the folder's maker."""
    request = Path(make(root))
    try:
        name = (request / "provider").read_text().strip()
        _require(name == "sev_guest", f"The processor attests by {name}; here only AMD SEV-SNP is known.")
        (request / "inblob").write_bytes(report_data)
        report, table = (request / "outblob").read_bytes(), request / "auxblob"
        return report, endorsement(table.read_bytes() if table.exists() else b"")
    finally:
        request.rmdir()


_KEYS = (bytes.fromhex("63da758de6644564adc5f4b93be8accd"), bytes.fromhex("a8074bc2a25a483eaae639c045a0b8a1"))
"""GUIDs of VCEK and VLEK in a certificate table."""
_ENTRY = struct.Struct("<16sII")


def endorsement(table: bytes) -> bytes:
    """The certificate of the signing key in a host's table of certificates (GUID, offset and length each, up to a GUID of zeros; "Guest
    Hypervisor Communication Block Standardization", 56421); empty if it is not there. Raises AttestationError for no table."""
    for first in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, length = _ENTRY.unpack_from(table, first)
        if not any(guid):
            break
        _require(offset + length <= len(table), "The host's table of certificates is damaged.")
        if guid in _KEYS:
            return table[offset : offset + length]
    return b""


_GET_REPORT = 0xC0205300
"""_IOWR('S', 0x0, struct snp_guest_request_ioctl) of <linux/sev-guest.h>."""
_REQUEST, _ANSWER, _CALL = struct.Struct("<64sI28x"), struct.Struct("<II24x"), struct.Struct("<B7xQQQ")
Ioctl = Callable[[int, int, bytearray], object]


def _from_device(report_data: bytes, device: Path, call: Ioctl | None = None) -> bytes:
    """The answer is a status, a size, 24 bytes and the report (table "MSG_REPORT_RSP Message Structure")."""
    asked, answer = ctypes.create_string_buffer(_REQUEST.pack(report_data, 0)), ctypes.create_string_buffer(4000)
    request = bytearray(_CALL.pack(1, ctypes.addressof(asked), ctypes.addressof(answer), 0))
    with device.open("r+b", buffering=0) as file:
        (call or _ioctl())(file.fileno(), _GET_REPORT, request)
    status, size = _ANSWER.unpack_from(answer.raw)
    _require(status == 0 and size == SIZE, f"The processor gave no report: status {status}, {size} bytes.")
    return answer.raw[_ANSWER.size : _ANSWER.size + size]


def _ioctl() -> Ioctl:
    from fcntl import ioctl  # not on every system that can train

    return ioctl
