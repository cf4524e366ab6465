"""SEV-SNP reports and certificates that the tests sign by keys of their own. They are no genuine ones, and AMD's certificates do not vouch
for them: a platform takes them only where it is told to trust this forge's folder."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from dmlworker.snp import PARTS, SIGNED, SIZE
from providers.snp import CHIP, CLOUD, LEVELS

MEASUREMENT = bytes(range(48))
CHIP_ID = bytes(range(64, 128))
PSS = padding.PSS(padding.MGF1(SHA384()), 48)


@lru_cache
def _key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _certificate(
    name: str, public: object, by: str, extensions: Mapping[str, bytes], hours: int = 168
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])

    begin = datetime.now(UTC) - timedelta(days=1)
    made = x509.CertificateBuilder().issuer_name(named(by)).subject_name(named(name)).public_key(public)
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin)
    made = made.not_valid_after(begin + timedelta(days=1, hours=hours))
    for oid, value in extensions.items():
        told = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{oid}"), value)
        made = made.add_extension(told, critical=False)
    return made.sign(_key(by), SHA384(), rsa_padding=PSS)


class Forge:
    """A chip of a product, with keys above it, in a folder that can be trusted in place of AMD's."""

    def __init__(self, folder: Path, product: str = "Milan") -> None:
        self.folder, self.product = folder, product
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.levels = dict.fromkeys(PARTS[product], 3)
        names = [f"{kind}-{product}" for kind in ("ARK", "SEV", "SEV-VLEK")]
        chain = [_certificate(name, _key(name).public_key(), names[0], {}) for name in names]
        pems = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
        (folder / f"{product.lower()}.pem").write_bytes(pems)

    def certificate(self, vlek: bool = False, hours: int = 168, **extensions: bytes | None) -> bytes:
        """Of the chip's key, DER. extensions: what differs of AMD's, by the names of `LEVELS`, `chip` and `cloud`; None leaves one out."""
        usual: dict[str, bytes | None] = {part: bytes([2, 1, level]) for part, level in self.levels.items()}
        chip = CHIP_ID[:8] if self.product == "Turin" else CHIP_ID
        usual |= {"cloud": b"\x16\x05cloud"} if vlek else {"chip": chip}
        oids = LEVELS | {"chip": CHIP, "cloud": CLOUD}
        told = {oids[name]: value for name, value in (usual | extensions).items() if value is not None}
        by = f"SEV{'-VLEK' if vlek else ''}-{self.product}"
        return _certificate("leaf", self.key.public_key(), by, told, hours).public_bytes(Encoding.DER)

    def report(self, report_data: bytes = bytes(64), vlek: bool = False, **fields: bytes) -> bytes:
        """Of a guest that nobody can look into. fields: by the offset as `at_0x38`, what else is written over it before it is signed."""
        chip = CHIP_ID[:8].ljust(64, b"\0") if self.product == "Turin" else CHIP_ID
        tcb = bytearray(8)
        for part, place in PARTS[self.product].items():
            tcb[place] = self.levels[part]
        body = bytearray(SIZE)
        usual = {0x00: b"\x03", 0x08: b"\0\0\x03", 0x34: b"\x01", 0x48: bytes([4 * vlek]), 0x50: report_data}
        usual |= {0x90: MEASUREMENT, 0x180: bytes(tcb), 0x188: b"\x19\x01", 0x1A0: chip}
        given = [(int(name.removeprefix("at_"), 16), value) for name, value in fields.items()]
        for at, value in [*usual.items(), *given]:
            body[at : at + len(value)] = value
        return self.signed(bytes(body))

    def signed(self, report: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(report[:SIGNED], ec.ECDSA(SHA384())))
        rest = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return report[:SIGNED] + rest.ljust(SIZE - SIGNED, b"\0")
