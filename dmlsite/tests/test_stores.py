"""The object stores, each on a stand-in of it."""

import gzip
import os
from urllib.parse import parse_qs, urlparse

import httpx
import pytest
from django.core.files.base import ContentFile

from dmlsite import stores
from scripts import services

GZIPPED = gzip.compress(b"a,b\n1,2\n")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    stack = services.Stack(folder, services.free_ports())
    for name in ("s3", "gcs"):
        services.start(stack, name)
    yield stack
    services.down(stack)


@pytest.fixture(params=["s3", "gcs"])
def store(request, stack):
    """A storage on a bucket that is there, and empty."""
    bucket = f"bucket-{os.urandom(4).hex()}"
    services.make_bucket(stack, bucket, request.param)
    return made(stack, request.param, bucket)


def made(stack, kind, bucket):
    if kind == "s3":
        where = {"endpoint_url": services.address(stack, "s3"), "region_name": services.REGION}
        return stores.S3(bucket_name=bucket, access_key="a", secret_key="b", querystring_expire=90, **where)
    where = {"emulator": services.address(stack, "gcs"), "key_file": str(stack.folder / "google.json")}
    return stores.Google(bucket_name=bucket, expiration=90, **where)


def test_a_file_is_kept_as_it_is_read_and_removed(store):
    name = store.save("datasets/cells.csv", ContentFile(b"1,2,3"))
    assert (store.exists(name), store.size(name), store.open(name).read()) == (True, 5, b"1,2,3")
    store.delete(name)
    assert not store.exists(name)
    with pytest.raises(FileNotFoundError):
        store.open(name)


def test_what_is_compressed_is_not_unpacked(store):
    name = store.save("datasets/cells.csv.gz", ContentFile(GZIPPED))
    assert store.open(name).read() == GZIPPED
    assert httpx.get(store.url(name)).read() == GZIPPED


def test_two_files_of_one_name_are_two_but_a_blob_is_one(store):
    names = {store.save("datasets/cells.csv", ContentFile(text)) for text in (b"one", b"two")}
    assert {store.open(name).read() for name in names} == {b"one", b"two"}
    assert all(name.endswith(".csv") for name in names)
    assert {store.save("blobs/aa/aabb", ContentFile(b"same")) for _ in range(2)} == {"blobs/aa/aabb"}


def test_a_link_is_signed_for_as_long_as_it_is_told(store):
    name = store.save("blobs/aa/aabb", ContentFile(b"weights"))
    link = store.url(name)
    assert httpx.get(link).content == b"weights"
    asked = {key.lower(): value for key, value in parse_qs(urlparse(link).query).items()}
    assert next(value for key, value in asked.items() if key.endswith("-expires")) == ["90"]
    assert any(key.endswith("-signature") for key in asked)


def test_a_store_that_is_away_is_an_outage_and_no_bug(stack, monkeypatch):
    """Google's client is the same, but asks for two minutes before it gives up."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = made(services.Stack(stack.folder, services.free_ports()), "s3", "away")
    for ask in (lambda: store.save("a", ContentFile(b"a")), lambda: store.open("a"), lambda: store.exists("a")):
        with pytest.raises(ConnectionError, match="object store"):
            ask()
