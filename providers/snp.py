"""What an AMD SEV-SNP attestation report proves. Pure: bytes in, facts or the reason for a refusal out.

Signatures and certificates are the `cryptography` library's to check. Object identifiers are those of AMD's "Versioned Chip
Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230); AMD's own certificates lie in `amd/`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.asn1 import IA5String, decode_der
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from dmlworker.snp import DEBUG, MIGRATE_MA, PARTS, VCEK, VLEK, AttestationError, Report, parse, tcb

AMD = Path(__file__).parent / "amd"
_AMDS = "1.3.6.1.4.1.3704.1."
LEVELS = {"boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
CHIP, CLOUD = "4", "5"
"""hwID and cspID: whose key it is, a chip's or a cloud provider's."""
MOST_BYTES = 4096
"""Of a certificate; AMD's have under 2,000."""
_NO_CERTIFICATE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
)

Tcb = tuple[int, ...]


@dataclass(frozen=True)
class Authority:
    """One of AMD's two keys of a product that sign others: ASK those of chips, ASVK those lent to cloud providers."""

    product: str
    signs: int
    certificate: x509.Certificate


@dataclass(frozen=True)
class Proven:
    """What is known of a guest whose report holds. chip: hexadecimal, or the cloud provider's name; tcb: in the order of `PARTS`; ends: of the
    certificate's validity."""

    product: str
    measurement: str
    chip: str
    tcb: Tcb
    ends: datetime


@lru_cache(maxsize=8)
def authorities(folder: Path = AMD) -> tuple[Authority, ...]:
    """Of the products that the folder has a file of: the root (ARK), which signed itself and the other two, ASK and ASVK."""
    return tuple(one for product in PARTS for one in _authorities(product, folder / f"{product.lower()}.pem"))


def _authorities(product: str, file: Path) -> list[Authority]:
    if not file.exists():
        return []
    root, ask, asvk = x509.load_pem_x509_certificates(file.read_bytes())
    for one in (root, ask, asvk):
        one.verify_directly_issued_by(root)
    return [Authority(product, VCEK, ask), Authority(product, VLEK, asvk)]


def verify(
    data: bytes,
    certificate: bytes,
    *,
    report_data: bytes,
    allowed: Collection[str],
    now: datetime,
    minimum: Mapping[str, Tcb],
    folder: Path = AMD,
) -> Proven:
    """Raises AttestationError unless the report is a genuine one of an AMD processor, was made for `report_data`, and is of a guest
    that nobody can look into and whose measurement (hexadecimal) is allowed.

    certificate: of the key that signed, PEM or DER. minimum: by product, the least security versions."""
    report, leaf = parse(data), _certificate(certificate)
    by = _issuer(leaf, authorities(folder), now)
    _check_signature(report, leaf)
    levels = _check_identity(report, leaf, by)
    _require(report.report_data == report_data, "The report was not made for this request: its REPORT_DATA is another.")
    _check_policy(report)
    _check_minimum(levels, by.product, minimum.get(by.product, ()))
    measurement = report.measurement.hex()
    _require(measurement in allowed, f"The measurement {measurement} is not on the platform's list.")
    return Proven(by.product, measurement, _whose(report, leaf), levels, leaf.not_valid_after_utc)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AttestationError(otherwise)


def _certificate(data: bytes) -> x509.Certificate:
    _require(0 < len(data) <= MOST_BYTES, "The certificate of the signing key is missing, or too large.")
    load = x509.load_pem_x509_certificate if data.startswith(b"-----BEGIN") else x509.load_der_x509_certificate
    try:
        found = load(data)
        key = found.public_key()
    except _NO_CERTIFICATE as error:
        raise AttestationError("The certificate of the signing key cannot be read.") from error
    _require(
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1), "The signing key is not P-384."
    )
    return found


def _issuer(leaf: x509.Certificate, trusted: tuple[Authority, ...], now: datetime) -> Authority:
    """Who of those trusted signed a key's certificate. All of them are valid now."""
    by = next((one for one in trusted if _signed(leaf, one.certificate)), None)
    if by is None:
        raise AttestationError("The certificate is not signed by a key of AMD's that is known here.")
    for one in (leaf, by.certificate):
        _require(one.not_valid_before_utc <= now <= one.not_valid_after_utc, "The certificate is not valid now.")
    return by


def _signed(leaf: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(by)
    except (InvalidSignature, *_NO_CERTIFICATE):
        return False
    return True


def _check_signature(report: Report, leaf: x509.Certificate) -> None:
    key = leaf.public_key()
    assert isinstance(key, EllipticCurvePublicKey)
    try:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, ECDSA(SHA384()))
    except InvalidSignature:
        raise AttestationError(
            "The report's signature is wrong: something was changed, or another key signed it."
        ) from None


def _check_identity(report: Report, leaf: x509.Certificate, by: Authority) -> Tcb:
    """The certificate speaks of the same chip in the same state as the report."""
    _require(report.signing_key == by.signs, "The report names another kind of signing key than its certificate.")
    levels = tcb(report.reported_tcb, by.product)
    certified = tuple(_level(leaf, part) for part in PARTS[by.product])
    _require(
        levels == certified, f"The report's TCB is {_dotted(levels)}, the certificate is for {_dotted(certified)}."
    )
    if by.signs == VCEK:
        _require(not report.chip_masked and any(report.chip_id), "The host hides which chip it is.")
        _require(_extension(leaf, CHIP).ljust(64, b"\0") == report.chip_id, "The certificate is of another chip.")
    return levels


def _whose(report: Report, leaf: x509.Certificate) -> str:
    if report.signing_key == VCEK:
        return report.chip_id.hex()
    name = _extension(leaf, CLOUD)
    try:
        return decode_der(IA5String, name).as_str()
    except ValueError as error:
        raise AttestationError("The certificate does not name the cloud provider.") from error


def _extension(leaf: x509.Certificate, name: str) -> bytes:
    try:
        found = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(_AMDS + name)).value
    except _NO_CERTIFICATE as error:
        raise AttestationError(f"The certificate lacks AMD's extension {_AMDS}{name}.") from error
    assert isinstance(found, x509.UnrecognizedExtension)
    return found.value


def _level(leaf: x509.Certificate, part: str) -> int:
    value = _extension(leaf, LEVELS[part])
    try:
        return decode_der(int, value)
    except (ValueError, OverflowError) as error:
        raise AttestationError(f"The certificate's extension for {part} is no number.") from error


def _check_policy(report: Report) -> None:
    _require(not report.policy & DEBUG, "The guest was started in debug mode: its host can read its memory.")
    _require(not report.policy & MIGRATE_MA, "The guest may be moved to other computers by a migration agent.")
    _require(report.vmpl == 0, f"The report was asked for at privilege level {report.vmpl}, not 0.")


def _check_minimum(levels: Tcb, product: str, least: Tcb) -> None:
    behind = [part for part, level, low in zip(PARTS[product], levels, least, strict=False) if level < low]
    _require(not behind, f"The firmware is too old ({', '.join(behind)}): {_dotted(levels)}, wanted {_dotted(least)}.")


def _dotted(levels: Tcb) -> str:
    return ".".join(map(str, levels))
