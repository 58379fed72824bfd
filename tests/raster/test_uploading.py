"""Sending rasters to an object store that fails in every way: whole, or not at all, and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geothresh.addresses import Address
from geothresh.errors import OutputError
from geothresh.raster.uploading import is_same, is_there, send
from tests.support.objects import Fault, ObjectStore, object_store
from tests.support.rasters import write_raster

OLD = b"an old object of somebody's"
MASK = Address.of("s3://bucket/out/mask.tif")
KEY = "bucket/out/mask.tif"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with object_store() as found:
        found.use(monkeypatch)
        yield found


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 2, (96, 96), np.uint8)
    return write_raster(tmp_path / "mask.tif", values)


def test_a_raster_arrives_byte_for_byte(store: ObjectStore, mask: Path) -> None:
    assert not is_there(MASK)
    send(mask, MASK, replace=False)
    assert store.objects == {KEY: mask.read_bytes()}
    assert is_there(MASK) and is_same(MASK, mask)


@pytest.mark.parametrize("name", ["gs://bucket/out/mask.tif", "az://bucket/out/mask.tif"])
def test_so_it_does_in_stores_of_others(store: ObjectStore, mask: Path, name: str) -> None:
    address = Address.of(name)
    assert not is_there(address)
    send(mask, address, replace=False)
    assert [key.endswith(KEY) for key in store.objects] == [True]
    assert is_same(address, mask)


def test_what_is_there_is_not_replaced_unasked(store: ObjectStore, mask: Path) -> None:
    store.objects[KEY] = OLD
    with pytest.raises(OutputError, match="exists already"):
        send(mask, MASK, replace=False)
    assert store.objects == {KEY: OLD} and not store.puts(KEY)


def test_with_leave_it_is_replaced_in_one_step(store: ObjectStore, mask: Path) -> None:
    store.objects[KEY] = OLD
    seen = set()
    store.before = lambda request: seen.add(store.objects.get(KEY))
    send(mask, MASK, replace=True)
    assert store.objects == {KEY: mask.read_bytes()}
    assert seen == {OLD, mask.read_bytes()}


def test_what_was_sent_before_is_not_sent_again(store: ObjectStore, mask: Path) -> None:
    store.objects[KEY] = mask.read_bytes()
    send(mask, MASK, replace=False)
    assert not store.puts(KEY)


@pytest.mark.parametrize("fault", ["busy", "cut", "slow"])
def test_a_fault_that_passes_costs_another_try(
    store: ObjectStore, mask: Path, fault: Fault
) -> None:
    store.faults += [("GET", "busy"), ("PUT", fault)]
    send(mask, MASK, replace=False)
    assert store.objects == {KEY: mask.read_bytes()}


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut", "cut after", "gone", "torn"])
@pytest.mark.parametrize("old", [None, OLD])
def test_a_fault_that_stays_is_told_and_leaves_what_was_there(
    store: ObjectStore, mask: Path, fault: Fault, old: bytes | None
) -> None:
    if old is not None:
        store.objects[KEY] = old
    store.always.append(("PUT", fault))
    with pytest.raises(OutputError) as caught:
        send(mask, MASK, replace=True)
    assert str(caught.value).startswith("s3://bucket/out/") and "\n" not in str(caught.value)
    assert "a-secret-of-the-tests" not in str(caught.value)
    if fault == "torn" and old is None:  # the store lied, and the error says to remove it
        assert "remove it" in str(caught.value)
        return
    assert store.objects.get(KEY) == old
    assert mask.is_file()


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut", "cut after"])
def test_a_copy_within_the_store_that_fails_leaves_the_old_object_or_the_new(
    store: ObjectStore, mask: Path, fault: Fault
) -> None:
    store.objects[KEY] = OLD
    store.always.append((f"PUT /{KEY}", fault))
    with pytest.raises(OutputError, match="could not be sent"):
        send(mask, MASK, replace=True)
    assert store.objects[KEY] == (mask.read_bytes() if fault == "cut after" else OLD)
    assert set(store.objects) == {KEY}


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut"])
def test_a_store_that_does_not_tell_is_not_taken_for_an_empty_one(
    store: ObjectStore, fault: Fault
) -> None:
    store.always.append(("GET", fault))
    with pytest.raises(OutputError, match="cannot be looked at"):
        is_there(MASK)


@pytest.mark.parametrize("content", [b"", b"no raster"])
def test_an_object_that_is_no_raster_is_there_too(store: ObjectStore, content: bytes) -> None:
    store.objects[KEY] = content
    assert is_there(MASK)


def parts(fault: Fault) -> list[tuple[str, Fault]]:
    return [("PUT.*partNumber=2", fault)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_large_raster_goes_in_parts(
    store: ObjectStore, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSIS3_CHUNK_SIZE", "5")  # MB, the least that S3 takes
    values = np.random.default_rng(0).integers(0, 256, (2600, 2600), np.uint8)
    large = write_raster(tmp_path / "large.tif", values)
    store.faults += [*parts(fault), ("POST.*uploadId", "busy")]
    send(large, MASK, replace=False)
    assert store.objects == {KEY: large.read_bytes()}
    store.objects.clear()
    store.always += parts(fault)
    with pytest.raises(OutputError, match="could not be sent"):
        send(large, MASK, replace=False)
    assert not store.objects
