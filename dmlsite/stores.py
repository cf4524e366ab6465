"""Object stores by django-storages, as the rest of the code expects a storage to be: a name is given once, bytes are never coded
anew, no file is held in memory as a whole, and a store that is away is a ConnectionError, as with every other part.
"""

import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any

import google.auth.exceptions
import requests.exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files import File
from django.utils.http import content_disposition_header
from google.api_core.exceptions import RetryError, ServerError
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from google.oauth2.service_account import Credentials
from storages.backends.gcloud import GoogleCloudStorage
from storages.backends.s3 import S3Storage
from storages.base import BaseStorage
from storages.utils import clean_name

from dmlsite.errors import Conflict

IN_MEMORY = 1 << 20
"""Bytes of an opened file; a longer one lies in a temporary file."""
BYTES = "application/octet-stream"
BY_CONTENT = "blobs/"
"""What is below is called by its SHA-256: the same name has the same bytes, and may be written again."""
AWAY = (requests.exceptions.ConnectionError, google.auth.exceptions.TransportError, ServerError, RetryError)


@contextmanager
def _told() -> Iterator[None]:
    """Raises ConnectionError where the store is away or in trouble of its own; it may work again in a moment."""
    try:
        yield
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
            raise
        raise ConnectionError(f"the object store has trouble: {error}") from error
    except (BotoCoreError, *AWAY) as error:
        raise ConnectionError(f"the object store does not answer: {error}") from error


class _Store(BaseStorage):  # type: ignore[misc]
    def _open(self, name: str, mode: str = "rb") -> File:
        with _told():
            found = super()._open(name, mode)
            found.file  # noqa: B018 (fetched now, not when it is first read)
        return found

    def _save(self, name: str, content: File) -> str:
        with _told():
            return str(super()._save(name, content))

    def delete(self, name: str) -> None:
        with _told():
            super().delete(name)

    def exists(self, name: str) -> bool:
        with _told():
            return bool(super().exists(name))

    def size(self, name: str) -> int:
        with _told():
            return int(super().size(name))

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Two processes may ask for the same name at once, and the store would take the second file for a new version of the first
        one: every name but a blob's is new."""
        name = clean_name(name)
        if name.startswith(BY_CONTENT):
            return name
        root, ending = posixpath.splitext(name)
        return f"{root}_{secrets.token_hex(8)}{ending}"


class S3(_Store, S3Storage):  # type: ignore[misc]
    """Amazon's S3, and what speaks as it does."""

    def __init__(self, **options: Any) -> None:
        style = "path" if options.get("endpoint_url") else "auto"  # others' hosts have no name for each bucket
        config = Config(
            s3={"addressing_style": style},
            signature_version="s3v4",
            request_checksum_calculation="when_required",  # stores other than Amazon's do not know the newer ones
            response_checksum_validation="when_required",
        )
        super().__init__(client_config=config, max_memory_size=IN_MEMORY, **options)

    def get_object_parameters(self, name: str) -> dict[str, str]:
        return {"ContentType": BYTES}

    def attached(self, name: str, called: str) -> str:
        """A link by which a browser saves the file under this name."""
        return str(self.url(name, parameters={"ResponseContentDisposition": content_disposition_header(True, called)}))

    # --- A file in parts, by others: tickets/direct.py

    def begin_parts(self, name: str) -> str:
        """The store's own name of an upload that begins."""
        with _told():
            return str(self._client.create_multipart_upload(**self._at(name), ContentType=BYTES)["UploadId"])

    def part_link(self, name: str, upload: str, number: int, size: int) -> str:
        """Where a part of just this size is put."""
        part = self._at(name) | {"UploadId": upload, "PartNumber": number, "ContentLength": size}
        return str(self._client.generate_presigned_url("upload_part", Params=part, ExpiresIn=self.querystring_expire))

    def parts(self, name: str, upload: str) -> dict[int, tuple[str, int]]:
        """What has come, by number: its tag and size. Raises Conflict if the store does not know the upload (any more)."""
        with _told():
            try:
                pages = self._client.get_paginator("list_parts").paginate(**self._at(name), UploadId=upload)
                found = [part for page in pages for part in page.get("Parts", [])]
            except self._client.exceptions.NoSuchUpload:
                raise Conflict("This upload was finished or dropped. Please begin anew.") from None
        return {part["PartNumber"]: (part["ETag"], part["Size"]) for part in found}

    def put_together(self, name: str, upload: str, tags: dict[int, str]) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())]
        with _told():
            self._client.complete_multipart_upload(**self._at(name), UploadId=upload, MultipartUpload={"Parts": parts})

    def moved(self, name: str, to: str) -> str:
        """Its new name. The bytes stay in the store."""
        with _told():
            self._client.copy(self._at(name), **self._at(to))
        self.delete(name)
        return to

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": self._normalize_name(name)}

    @property
    def _client(self) -> Any:
        return self.connection.meta.client


class Google(_Store, GoogleCloudStorage):  # type: ignore[misc]
    """Google Cloud Storage. `emulator`: the address of a stand-in, which takes anybody's word and checks no signature; `key_file`: of a
    service account, which signs links."""

    def __init__(self, emulator: str, key_file: str, expiration: int, **options: Any) -> None:
        self.emulator, self.key_file = emulator, key_file
        super().__init__(max_memory_size=IN_MEMORY, expiration=timedelta(seconds=expiration), **options)

    @cached_property
    def signer(self) -> Credentials | None:
        return Credentials.from_service_account_file(self.key_file) if self.key_file else None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self._connected()
        return self._client

    def _connected(self) -> Client:
        if self.emulator:
            there = {"api_endpoint": self.emulator}
            return Client(project="emulator", credentials=AnonymousCredentials(), client_options=there)
        return Client(project=self.signer.project_id if self.signer else None, credentials=self.signer)

    def url(self, name: str, parameters: dict[str, Any] | None = None) -> str:
        there = {"credentials": self.signer, "api_access_endpoint": self.emulator} if self.emulator else {}
        return str(super().url(name, parameters=there | (parameters or {})))

    def get_object_parameters(self, name: str) -> dict[str, Any]:
        return {"content_type": BYTES, "content_encoding": None}

    def attached(self, name: str, called: str) -> str:
        return self.url(name, parameters={"response_disposition": content_disposition_header(True, called)})
