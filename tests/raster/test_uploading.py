"""Sending rasters to an object store that fails in every way: whole, or not at all, and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geothresh.addresses import Address
from geothresh.errors import OutputError
from geothresh.raster import objects
from geothresh.raster.dataset import open_dataset
from geothresh.raster.objects import StoreError, files_in
from geothresh.raster.paths import find_raster
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
def test_a_fault_that_stays_is_told_and_leaves_what_was_there_or_all_of_the_new(
    store: ObjectStore, mask: Path, fault: Fault, old: bytes | None
) -> None:
    if old is not None:
        store.objects[KEY] = old
    store.always.append(("PUT", fault))
    with pytest.raises(OutputError) as caught:
        send(mask, MASK, replace=True)
    assert str(caught.value).startswith("s3://bucket/out/") and "\n" not in str(caught.value)
    assert "a-secret-of-the-tests" not in str(caught.value)
    assert mask.is_file() and "DELETE" not in {method for method, _ in store.asked}
    if fault == "torn":  # the store lied, and the error says to remove it
        assert "remove it" in str(caught.value)
    else:
        assert store.objects.get(KEY) == (mask.read_bytes() if fault == "cut after" else old)


@pytest.mark.parametrize(
    ("fault", "word"), [("busy", "SlowDown"), ("forbidden", "AccessDenied"), ("cut", "no answer")]
)
def test_it_is_told_what_the_store_said(
    store: ObjectStore, mask: Path, fault: Fault, word: str
) -> None:
    store.always.append(("PUT", fault))
    with pytest.raises(OutputError, match=word):
        send(mask, MASK, replace=False)
    # Those of GDAL, none, or ours, each perhaps with GDAL's.
    assert store.puts(KEY) in {"busy": (3,), "forbidden": (1,), "cut": range(3, 10)}[fault]


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_what_is_read_back_may_fail_for_a_while(
    store: ObjectStore, mask: Path, fault: Fault
) -> None:
    store.objects[KEY] = mask.read_bytes()
    store.faults += [("GET", fault)]
    assert is_same(MASK, mask)
    store.always += [("GET", fault)]
    with pytest.raises(OutputError, match="cannot be read back"):
        is_same(MASK, mask)


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut"])
def test_a_store_that_does_not_tell_is_not_taken_for_an_empty_one(
    store: ObjectStore, fault: Fault
) -> None:
    store.always.append(("GET", fault))
    with pytest.raises(OutputError, match="cannot be looked at"):
        is_there(MASK)


def test_a_store_that_gave_no_answer_is_asked_again(store: ObjectStore, mask: Path) -> None:
    store.objects[KEY] = mask.read_bytes()
    store.faults.append(("GET", "cut"))
    assert is_there(MASK)
    store.faults.append(("GET", "cut"))
    with open_dataset(find_raster("s3://bucket/out/mask.tif")) as found:
        assert found.shape == (96, 96)


@pytest.mark.parametrize("content", [b"", b"no raster"])
def test_an_object_that_is_no_raster_is_there_too(store: ObjectStore, content: bytes) -> None:
    store.objects[KEY] = content
    assert is_there(MASK)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that goes in three parts."""
    monkeypatch.setattr(objects, "ONE_REQUEST", 1000)
    monkeypatch.setattr(objects, "PART", 2000)
    file = tmp_path / "roads.gpkg"
    file.write_bytes(np.random.default_rng(0).bytes(5500))
    return file


ROADS = Address.of("s3://bucket/out/roads.gpkg")


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_large_file_of_any_kind_goes_in_parts(
    store: ObjectStore, large: Path, scheme: str
) -> None:
    address = Address.of(f"{scheme}://bucket/out/roads.gpkg")
    send(large, address, replace=False)
    assert list(store.objects.values()) == [large.read_bytes()]
    assert sum("partNumber" in path or "comp=block&" in path or path.endswith("comp=block")
               for method, path in store.asked if method == "PUT") == 3  # fmt: skip
    assert not store.uploads


@pytest.mark.parametrize("request_", ["POST.*uploads", "PUT.*partNumber=2", "POST.*uploadId"])
@pytest.mark.parametrize("fault", ["busy", "cut", "slow"])
def test_a_fault_of_a_part_that_passes_costs_another_try(
    store: ObjectStore, large: Path, request_: str, fault: Fault
) -> None:
    store.faults.append((request_, fault))
    send(large, ROADS, replace=False)
    assert store.objects["bucket/out/roads.gpkg"] == large.read_bytes()


@pytest.mark.parametrize("request_", ["POST.*uploads", "PUT.*partNumber=3", "POST.*uploadId"])
@pytest.mark.parametrize("fault", ["busy", "cut", "forbidden"])
@pytest.mark.parametrize("old", [None, OLD])
def test_a_fault_of_a_part_that_stays_leaves_what_was_there_and_no_part(
    store: ObjectStore, large: Path, request_: str, fault: Fault, old: bytes | None
) -> None:
    if old is not None:
        store.objects["bucket/out/roads.gpkg"] = old
    store.always.append((request_, fault))
    with pytest.raises(OutputError, match="could not be sent"):
        send(large, ROADS, replace=True)
    assert store.objects.get("bucket/out/roads.gpkg") == old
    assert not store.uploads


def test_parts_grow_with_what_is_sent(
    store: ObjectStore, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_MOST_PARTS", 2)
    send(large, ROADS, replace=False)
    assert store.objects["bucket/out/roads.gpkg"] == large.read_bytes()
    assert store.puts("bucket/out/roads.gpkg") == 2


@pytest.mark.slow
def test_so_it_goes_at_the_size_of_real_parts(store: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "roads.gpkg"
    file.write_bytes(np.random.default_rng(0).bytes(2 * objects.PART + 1))
    store.faults += [("PUT.*partNumber=2", "busy"), ("PUT.*partNumber=3", "cut")]
    send(file, ROADS, replace=False)
    assert store.objects["bucket/out/roads.gpkg"] == file.read_bytes()
    assert store.puts("bucket/out/roads.gpkg") == 5


@pytest.mark.parametrize("place", ["s3://bucket/in", "gs://bucket/in", "s3://bucket"])
def test_files_of_a_directory_are_listed_without_those_below(
    store: ObjectStore, place: str
) -> None:
    inside = "" if place.endswith("bucket") else "in/"
    names = [f"{n}.tif" for n in range(25)]
    store.objects |= {f"bucket/{inside}{name}": b"x" for name in names}
    store.objects |= {f"bucket/{inside}below/a.tif": b"x", "bucket/inner.tif": b"x"}
    store.page = 10
    store.faults.append(("GET", "busy"))
    others = [] if inside else ["inner.tif"]
    assert files_in(Address.of(place, several=True).location) == sorted(names + others)


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut"])
def test_a_list_that_does_not_come_is_told(store: ObjectStore, fault: Fault) -> None:
    store.objects |= {f"bucket/in/{n}.tif": b"x" for n in range(25)}
    store.page = 10
    for pattern in ("GET", "GET.*marker"):
        store.always = [(pattern, fault)]
        with pytest.raises(StoreError):
            files_in("/vsis3/bucket/in")
