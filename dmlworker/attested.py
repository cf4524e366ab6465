"""An attested worker: it draws a secret, lets its processor report on it, and presents the report to the platform, again and again.

`dmlworker attest` shows what a report made here and now says, for the provider and for the platform's admin."""

import argparse
import asyncio
import secrets
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from dmlworker import snp
from dmlworker.protocol import ATTEST_PATH, attestation_data, session_of
from dmlworker.snp import AttestationError

SOONEST = 60.0
"""Seconds between two reports, at least."""


class Attested:
    """One worker's secret, which is drawn anew at each start, and the reports about it. certificate: a file with the one of the signing key, where
    the host gives none. Raises AttestationError at once on a computer that cannot report."""

    def __init__(
        self, certificate: Path | None = None, ask: Callable[[bytes], tuple[bytes, bytes]] = snp.evidence
    ) -> None:
        self.secret = secrets.token_hex(32)
        self._file, self._ask = certificate, ask
        self._evidence(bytes(64))

    def _evidence(self, report_data: bytes) -> tuple[bytes, bytes]:
        report, certificate = self._ask(report_data)
        if self._file:
            try:
                certificate = self._file.read_bytes()
            except OSError as error:
                raise AttestationError(f"Can't read {self._file}: {error.strerror}.") from error
        if not certificate:
            raise AttestationError(f"The host gives no certificate. {_where(snp.parse(report))}")
        return report, certificate

    async def present(self, http: httpx.AsyncClient, site: str) -> float:
        """Proves it anew to the platform at `site` (host and port); gives the seconds after which to do it again. Raises AttestationError with
        the platform's reason, or httpx.HTTPError if it could not be asked."""
        asked = await _said(http, ATTEST_PATH)
        if asked["site"] != site:
            raise AttestationError(f"The platform calls itself {asked['site']}: give that address, not {site}.")
        session = session_of(self.secret)
        data = attestation_data(site, asked["nonce"], asked["wallet"], session)
        report, certificate = await asyncio.to_thread(self._evidence, data)
        told = {"report": b64encode(report).decode(), "certificate": b64encode(certificate).decode()}
        answer = await _said(http, f"{ATTEST_PATH}/{asked['id']}", **told, session=session)
        left = (datetime.fromisoformat(answer["expires"]) - datetime.now(UTC)).total_seconds()
        return max(SOONEST, left / 2)


async def _said(http: httpx.AsyncClient, path: str, **told: str) -> dict[str, Any]:
    response = await http.post(path, json=told)
    if 400 <= response.status_code < 500 and response.status_code not in (408, 429):
        raise AttestationError(response.json().get("detail", f"it answered {response.status_code}"))
    response.raise_for_status()
    found: dict[str, Any] = response.json()
    return found


def _where(report: snp.Report) -> str:
    """Where AMD's certificate for a report is had."""
    names = [snp.product(report)] if snp.product(report) else list(snp.PARTS)
    urls = []
    for name in names:
        try:
            urls.append(snp.certificate_url(report, name))
        except AttestationError:  # the TCB is none of that product
            continue
    return f"Download it from AMD ({' or '.join(urls)}), and name the file with --certificate."


def main(arguments: list[str]) -> int:
    """`dmlworker attest`: the exit code is 0 if a report can be had here."""
    found = argparse.ArgumentParser(
        "dmlworker attest", description="Show what an AMD SEV-SNP report made on this computer says."
    )
    found.parse_args(arguments)
    try:
        data, certificate = snp.evidence(secrets.token_bytes(64))
        print(shown(snp.parse(data), certificate))
    except AttestationError as error:
        print(f"dmlworker: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def shown(report: snp.Report, certificate: bytes) -> str:
    debug = "on: the host can read this guest, and no platform takes it" if report.policy & snp.DEBUG else "off"
    lines = {
        "Measurement": report.measurement.hex(),
        "Processor": f"AMD EPYC {snp.product(report) or '(not told)'}, report version {report.version}",
        "Chip": report.chip_id.hex(),
        "Debug mode": debug,
        "Certificate": "given by the host" if certificate else _where(report),
    }
    return "\n".join(f"{name + ':':<13} {value}" for name, value in lines.items())
