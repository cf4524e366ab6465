"""Files known by their SHA-256, for who checks a receipt: out of a folder, or by the receipt's own link."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import httpx

CHUNK = 1 << 20
TRIES = 3
SECONDS = 60.0
SHA256 = re.compile("[0-9a-f]{64}")


class Unavailable(Exception):
    """A file, or the receipt itself, cannot be had. The text says why."""


class Damaged(Exception):
    """A file is not what the receipt names."""


class Files:
    """`place`: a folder, or a link, to which the SHA-256 is added. What comes by a link is kept in `folder`."""

    def __init__(self, place: str, folder: Path, http: httpx.Client) -> None:
        self._place, self._folder, self._http = place.rstrip("/"), folder, http

    def path(self, sha256: str) -> Path:
        """The file, its hash checked. Raises Unavailable, Damaged."""
        if not SHA256.fullmatch(sha256):
            raise Damaged(f"{sha256!r:.80} is no SHA-256")
        remote = is_link(self._place)
        path = (self._folder if remote else Path(self._place)) / sha256
        if remote and not path.exists():
            fetch(self._http, f"{self._place}/{sha256}", path)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Unavailable(f"{sha256[:12]}… is not in {self._place}: {error.strerror}") from None
        if found != sha256:
            self.drop([sha256])
            raise Damaged(f"the file {sha256[:12]}… has another hash, {found[:12]}…")
        return path

    def drop(self, names: Iterable[str]) -> None:
        """Free the disk of what was fetched and is not needed any more."""
        for sha256 in filter(SHA256.fullmatch, names):
            (self._folder / sha256).unlink(missing_ok=True)


def is_link(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def fetch(http: httpx.Client, link: str, path: Path) -> None:
    """Write what a link gives into a file; a line that breaks is tried again. Raises Unavailable."""
    for attempt in range(TRIES):
        try:
            with http.stream("GET", link, timeout=SECONDS, follow_redirects=True) as answer, path.open("wb") as file:
                _check(answer)
                for chunk in answer.iter_bytes(CHUNK):
                    file.write(chunk)
            return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if attempt + 1 == TRIES:
                path.unlink(missing_ok=True)
                raise Unavailable(f"{httpx.URL(link).host} does not answer: {error or type(error).__name__}") from None
        except Unavailable:
            path.unlink(missing_ok=True)
            raise


def _check(answer: httpx.Response) -> None:
    reasons = {404: "it is not there (any more)", 410: "the link has run out: the ticket's page renews it"}
    if answer.status_code >= 500:
        raise httpx.ReadError(f"the platform answers {answer.status_code}")
    if answer.status_code != 200:
        name = answer.url.path.rpartition("/")[2]
        said = reasons.get(answer.status_code, f"the platform answers {answer.status_code}")
        raise Unavailable(f"{name[:12]}…: {said}")
