"""What an attestation report must be to be believed: on genuine ones, on genuine ones with something changed, and on the tests' own."""

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlworker import snp as reports
from dmlworker.snp import SIZE, AttestationError, parse
from providers import snp
from providers.tests.forge import CHIP_ID, MEASUREMENT, Forge

GENUINE = Path(__file__).parent / "snp"
NOW = datetime(2026, 11, 25, tzinfo=UTC)
GCP, AZURE, DEBUG = "gcp-milan-v5", "azure-genoa-v3", "debug-milan-v2"
ROOTS = {
    "milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}


def genuine(name: str) -> tuple[bytes, bytes]:
    return bytes.fromhex((GENUINE / f"{name}.hex").read_text()), (GENUINE / f"{name}.pem").read_bytes()


def verified(report: bytes, certificate: bytes, of: bytes, **other: object) -> snp.Proven:
    """As if what the report `of` says were what is asked for."""
    wanted = parse(of)
    asked = {"report_data": wanted.report_data, "allowed": {wanted.measurement.hex()}, "now": NOW, "minimum": {}}
    return snp.verify(report, certificate, **(asked | other))  # type: ignore[arg-type]


# --- Genuine ones -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("product", ROOTS)
def test_the_roots_are_amds_and_have_signed_all_of_their_products_certificates(product):
    chain = x509.load_pem_x509_certificates((snp.AMD / f"{product}.pem").read_bytes())
    assert hashlib.sha256(chain[0].public_bytes(Encoding.DER)).hexdigest() == ROOTS[product]
    for one in chain:
        one.verify_directly_issued_by(chain[0])


@pytest.mark.parametrize(
    ("name", "product", "tcb"), [(GCP, "Milan", (4, 0, 27, 222)), (AZURE, "Genoa", (10, 0, 23, 84))]
)
def test_genuine_reports_hold(name, product, tcb):
    report, certificate = genuine(name)
    found = verified(report, certificate, report)
    assert (found.product, found.tcb, found.measurement) == (product, tcb, parse(report).measurement.hex())
    assert found.chip == parse(report).chip_id.hex() and reports.product(parse(report)) == product


def test_certificates_may_be_der():
    report, certificate = genuine(GCP)
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    assert verified(report, der, report) == verified(report, certificate, report)


def test_a_genuine_report_of_a_guest_in_debug_mode_is_refused_for_that_alone():
    report, certificate = genuine(DEBUG)
    with pytest.raises(AttestationError, match="debug mode"):
        verified(report, certificate, report)


def test_where_amd_gives_a_certificate():
    assert reports.certificate_url(parse(genuine(AZURE)[0]), "Genoa") == (
        "https://kdsintf.amd.com/vcek/v1/Genoa/0506ffba875e939c2729d20c74eb72b4c5ba6bf7ea1faaa640141f12c6d64782fb487f68ce69dcd021e914cc0d92"
        "44327bc121f0242d6470903ad1d4aaea4ad1?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84"
    )


# --- Genuine ones, changed --------------------------------------------------------------------------------------------
def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


@pytest.mark.parametrize("name", [GCP, AZURE])
def test_no_byte_of_a_report_can_be_changed(name):
    report, certificate = genuine(name)
    for place in range(SIZE):
        with pytest.raises(AttestationError):
            verified(changed := flipped(report, place), certificate, report)
        with pytest.raises(AttestationError):  # also by one to whom it says what they want to hear
            snp.verify(
                changed,
                certificate,
                report_data=changed[0x50:0x90],
                allowed={changed[0x90:0xC0].hex()},
                now=NOW,
                minimum={},
            )


def test_no_byte_of_a_certificate_can_be_changed():
    report, certificate = genuine(GCP)
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    for place in range(len(der)):
        with pytest.raises(AttestationError):
            verified(report, flipped(der, place), report)


def test_a_certificate_is_of_one_chip_and_of_one_state_of_its_firmware():
    report, _ = genuine(GCP)
    for other in (AZURE, DEBUG):
        with pytest.raises(AttestationError, match="signature is wrong"):
            verified(report, genuine(other)[1], report)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"report_data": b"\1" * 64}, "not made for this request"),
        ({"allowed": set()}, "not on the platform's list"),
        ({"now": datetime(2040, 1, 1, tzinfo=UTC)}, "not valid now"),
        ({"now": datetime(2025, 1, 1, tzinfo=UTC)}, "not valid now"),
        ({"minimum": {"Milan": (4, 0, 27, 223)}}, r"too old \(microcode\): 4.0.27.222, wanted 4.0.27.223"),
        ({"minimum": {"Milan": (5, 0, 28, 222)}}, r"too old \(boot_loader, snp\)"),
    ],
)
def test_a_genuine_report_is_not_enough(other, why):
    report, certificate = genuine(GCP)
    with pytest.raises(AttestationError, match=why):
        verified(report, certificate, report, **other)


def test_firmware_that_is_new_enough_will_do():
    report, certificate = genuine(GCP)
    assert verified(report, certificate, report, minimum={"Milan": (4, 0, 27, 222), "Genoa": (99, 99, 99, 99)})


# --- The tests' own: what no genuine report at hand can show ----------------------------------------------------------
@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path)


def trusting(forge: Forge, report: bytes, certificate: bytes) -> snp.Proven:
    return snp.verify(
        report,
        certificate,
        report_data=bytes(64),
        allowed={MEASUREMENT.hex()},
        now=datetime.now(UTC),
        minimum={},
        folder=forge.folder,
    )


def test_a_chain_of_ones_own_is_worth_nothing_where_amds_are_trusted(forge):
    assert trusting(forge, forge.report(), forge.certificate()).chip == CHIP_ID.hex()
    with pytest.raises(AttestationError, match="not signed by a key of AMD's"):
        verified(forge.report(), forge.certificate(), forge.report(), now=datetime.now(UTC))


def test_a_turin_has_five_security_versions_and_a_short_chip_id(tmp_path):
    forge = Forge(tmp_path, "Turin")
    assert trusting(forge, forge.report(), forge.certificate()).tcb == (3, 3, 3, 3, 3)
    url = reports.certificate_url(parse(forge.report()), "Turin")
    assert url.endswith(f"/{CHIP_ID[:8].hex()}?fmcSPL=03&blSPL=03&teeSPL=03&snpSPL=03&ucodeSPL=03")


def test_a_key_lent_to_a_cloud_provider_names_the_provider(forge):
    assert trusting(forge, forge.report(vlek=True), forge.certificate(vlek=True)).chip == "cloud"
    with pytest.raises(AttestationError, match="another kind of signing key"):
        trusting(forge, forge.report(), forge.certificate(vlek=True))
    with pytest.raises(AttestationError, match="another kind of signing key"):
        trusting(forge, forge.report(vlek=True), forge.certificate())
    with pytest.raises(AttestationError, match="does not name the cloud provider"):
        trusting(forge, forge.report(vlek=True), forge.certificate(vlek=True, cloud=b"\x02\x01\x05"))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"at_0x0": b"\4"}, "version 4"),
        ({"at_0x8": b"\0\0\1"}, "bits of the policy"),
        ({"at_0x8": b"\0\0\3\x04"}, "bits of the policy"),
        ({"at_0x8": b"\0\0\x0b"}, "debug mode"),
        ({"at_0x8": b"\0\0\7"}, "migration agent"),
        ({"at_0x30": b"\1"}, "privilege level 1"),
        ({"at_0x34": b"\2"}, "not signed with ECDSA"),
        ({"at_0x48": b"\x20"}, "beside the signing key"),
        ({"at_0x48": b"\x1c"}, "another kind of signing key"),
        ({"at_0x48": b"\2"}, "hides which chip"),
        ({"at_0x4c": b"\1"}, "0x04c to 0x04f"),
        ({"at_0x180": b"\3\3\1"}, "no TCB version of Milan"),
        ({"at_0x180": b"\2"}, "TCB is 2.3.3.3, the certificate is for 3.3.3.3"),
        ({"at_0x1a0": b"\0"}, "another chip"),
        ({"at_0x1a0": bytes(64)}, "hides which chip"),
        ({"at_0x29f": b"\1"}, "Reserved bytes"),
    ],
)
def test_what_a_rightly_signed_report_may_not_say(forge, fields, why):
    with pytest.raises(AttestationError, match=why):
        trusting(forge, forge.report(**fields), forge.certificate())


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        ({"snp": None}, "lacks AMD's extension"),
        ({"chip": None}, "lacks AMD's extension"),
        ({"tee": b"\2\1\4"}, "the certificate is for 3.4.3.3"),
        ({"tee": b"\2\2\1\3"}, "the certificate is for 3.259.3.3"),
        ({"tee": b"\2\1"}, "no number"),
        ({"tee": b"\4\1\3"}, "no number"),
        ({"chip": CHIP_ID[:63]}, "another chip"),
    ],
)
def test_what_a_rightly_signed_certificate_may_not_say(forge, extensions, why):
    with pytest.raises(AttestationError, match=why):
        trusting(forge, forge.report(), forge.certificate(**extensions))


def test_keys_of_other_curves_are_refused(forge):
    forge.key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(AttestationError, match="not P-384"):
        trusting(forge, forge.report(), forge.certificate())


@pytest.mark.parametrize("certificate", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\n", b"\0" * 20_000])
def test_what_is_no_certificate(forge, certificate):
    with pytest.raises(AttestationError, match="certificate of the signing key"):
        trusting(forge, forge.report(), certificate)


# --- Anything at all --------------------------------------------------------------------------------------------------
@given(st.binary(max_size=2 * SIZE) | st.binary(min_size=SIZE, max_size=SIZE))
def test_parsing_knows_one_error(data):
    with suppress(AttestationError):
        assert parse(data).version in reports.VERSIONS


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_reports_and_certificates_with_anything_in_them_know_one_error(forge, data):
    """Rightly signed reports with random pieces, and certificates with random bytes."""
    changes = data.draw(st.dictionaries(st.integers(0, SIZE - 1), st.binary(max_size=64), max_size=3))
    report = forge.report(**{f"at_{at:#x}": value for at, value in changes.items() if at + len(value) <= SIZE})
    certificate = bytearray(forge.certificate(tee=data.draw(st.binary(max_size=8)) or None))
    for at, value in data.draw(st.dictionaries(st.integers(0, 500), st.integers(0, 255), max_size=2)).items():
        certificate[at] = value
    with suppress(AttestationError):
        trusting(forge, report, bytes(certificate))


@given(st.binary(max_size=200))
def test_a_table_of_certificates_knows_one_error(table):
    with suppress(AttestationError):
        assert isinstance(reports.endorsement(table), bytes)
