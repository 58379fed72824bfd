"""Scenes and outputs in object stores, which may be slow, busy, closed or cut off."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import geopandas
import numpy as np
import pytest
import rasterio

import geothresh
from geothresh import VectorWriting, vectorize
from geothresh.addresses import Address
from geothresh.cli import main
from geothresh.durability import Journal
from geothresh.errors import InputError, OutputError, UsageError
from geothresh.options import Outputs, Tiling, Writing
from geothresh.raster import objects
from geothresh.raster.objects import files_in
from geothresh.raster.uploading import is_same, send
from geothresh.run import staging
from tests.support.cli_runner import runner
from tests.support.fakes import Recognisable
from tests.support.objects import Fault, ObjectStore
from tests.support.rasters import write_raster

TILING = Tiling(tile_size=64, overlap=16)
KEY = "bucket/out/mask.tif"
MASK = f"s3://{KEY}"
OLD = b"an old object of somebody's"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    values = np.random.default_rng(3).random((200, 150)).astype(np.float32)
    values[:20, :30] = np.nan
    return write_raster(tmp_path / "scene.tif", values)


def refine(
    scene: Any,
    output: Any = MASK,
    refiner: Any = None,
    outputs: Outputs = Outputs(),
    **writing: Any,
) -> geothresh.RefineResult:
    return geothresh.refine(
        scene, output, model=refiner or Recognisable(), tiling=TILING, outputs=outputs,
        writing=Writing(**writing),
    )  # fmt: skip


def left(tmp_path: Path) -> list[str]:
    """What is left in the directory of unfinished work."""
    work = tmp_path / "work"
    return sorted(str(path.relative_to(work)) for path in work.rglob("*")) if work.exists() else []


@pytest.mark.parametrize("scheme", ["s3://", "/vsis3/", "gs://", "/vsigs/", "az://", "/vsiaz/"])
def test_a_scene_of_a_store_becomes_a_mask_there(
    store: ObjectStore, scene: Path, tmp_path: Path, scheme: str
) -> None:
    local = refine(scene, tmp_path / "mask.tif")
    inside = "account/" if scheme in ("az://", "/vsiaz/") else ""
    store.objects[f"{inside}bucket/scene.tif"] = scene.read_bytes()
    result = refine(f"{scheme}bucket/scene.tif", f"{scheme}{KEY}")
    assert result.mask == f"{scheme}{KEY}"
    assert store.objects.pop(f"{inside}{KEY}") == (tmp_path / "mask.tif").read_bytes()
    assert set(store.objects) == {f"{inside}bucket/scene.tif"}
    assert result.changed_pixels == local.changed_pixels and not left(tmp_path)


def test_other_rasters_go_there_too_and_files_stay_here(
    store: ObjectStore, scene: Path, tmp_path: Path
) -> None:
    outputs = Outputs(
        confidence="s3://bucket/out/refined.tif", changes=tmp_path / "changes.tif",
        vector=tmp_path / "roads.gpkg",
    )  # fmt: skip
    result = refine(scene, outputs=outputs)
    assert set(store.objects) == {KEY, "bucket/out/refined.tif"}
    assert result.confidence == "s3://bucket/out/refined.tif"
    assert result.changes == tmp_path / "changes.tif" and result.vector == tmp_path / "roads.gpkg"
    assert result.features and result.manifest is None
    with rasterio.open(result.mask) as mask, rasterio.open(scene) as own:
        assert mask.transform == own.transform and mask.crs == own.crs


def test_the_command_says_where_the_mask_is(
    store: ObjectStore, scene: Path, tiny_model: Path
) -> None:
    result = runner().invoke(main, ["refine", str(scene), "-o", MASK, "-m", str(tiny_model)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{MASK}\n"
    again = runner().invoke(main, ["refine", str(scene), "-o", MASK, "-m", str(tiny_model)])
    assert again.exit_code == 4 and "--overwrite" in again.stderr


def test_an_object_that_is_there_is_refused_before_any_work(
    store: ObjectStore, scene: Path, tmp_path: Path
) -> None:
    store.objects[KEY] = OLD
    refiner = Recognisable()
    with pytest.raises(OutputError, match=f"{MASK}: exists already"):
        refine(scene, refiner=refiner)
    assert not refiner.tiles and store.objects == {KEY: OLD} and not left(tmp_path)
    refine(scene, overwrite=True)
    assert store.objects[KEY].startswith(b"II*\0") and set(store.objects) == {KEY}


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut", "cut after", "gone"])
def test_what_could_not_be_sent_is_kept_and_the_same_command_sends_it(
    store: ObjectStore, scene: Path, tmp_path: Path, fault: Fault
) -> None:
    whole = Path(refine(scene, tmp_path / "mask.tif").mask).read_bytes()
    store.always.append(("PUT", fault))
    with pytest.raises(OutputError, match=MASK) as caught:
        refine(scene)
    (kept,) = (tmp_path / "work").glob("mask.tif-*/mask.tif")
    assert str(kept) in str(caught.value) and kept.read_bytes() == whole
    assert "the same command goes on" in " ".join(caught.value.__notes__)
    assert store.objects == ({KEY: whole} if fault == "cut after" else {})
    store.always.clear()
    refiner = Recognisable()
    result = refine(scene, refiner=refiner)
    assert not refiner.tiles and store.objects == {KEY: whole}
    assert result.tiles_refined and not left(tmp_path)


def test_what_somebody_else_puts_there_meanwhile_is_not_replaced(
    store: ObjectStore, scene: Path
) -> None:
    store.always.append(("PUT", "busy"))
    with pytest.raises(OutputError):
        refine(scene)
    store.always.clear()
    store.objects[KEY] = OLD
    with pytest.raises(OutputError, match="exists already"):
        refine(scene)
    assert store.objects == {KEY: OLD}


def test_a_kill_after_it_was_sent_costs_nothing(
    store: ObjectStore, scene: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as now:
        now.setattr("geothresh.durability.Journal.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            refine(scene)
    sent = store.objects[KEY]
    refiner = Recognisable()
    refine(scene, refiner=refiner)
    assert not refiner.tiles and store.objects == {KEY: sent} and store.puts(KEY) == 1
    assert not left(tmp_path)


def test_a_run_that_is_stopped_goes_on_from_its_strips(
    store: ObjectStore, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raster(scene, np.random.default_rng(3).random((2200, 70)).astype(np.float32))

    class Stopped(Journal):
        def commit(self, facts: Any) -> None:
            super().commit(facts)
            if len(self.strips) == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt) as caught:
        now.setattr("geothresh.api.refine.Journal", Stopped)
        refine(scene)
    assert "the same command goes on" in " ".join(caught.value.__notes__)
    assert not store.objects
    assert refine(scene).strips_resumed == 2
    refine(scene, tmp_path / "mask.tif")
    assert store.objects == {KEY: (tmp_path / "mask.tif").read_bytes()}


def test_a_run_does_not_go_on_from_strips_of_an_object_that_changed(
    store: ObjectStore, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(3).random((2200, 70)).astype(np.float32)
    store.objects["bucket/scene.tif"] = write_raster(scene, values).read_bytes()

    class Stopped(Journal):
        def commit(self, facts: Any) -> None:
            super().commit(facts)
            raise KeyboardInterrupt

    with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt):
        now.setattr("geothresh.api.refine.Journal", Stopped)
        refine("s3://bucket/scene.tif")
    store.objects["bucket/scene.tif"] = write_raster(scene, 1 - values).read_bytes()
    with pytest.raises(InputError, match="another input head"):
        refine("s3://bucket/scene.tif")
    assert refine("s3://bucket/scene.tif", restart=True).strips_resumed == 0


def test_no_secret_is_told(
    store: ObjectStore, scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="geothresh")
    store.objects["bucket/scene.tif"] = scene.read_bytes()
    signed = f"{store.url}/bucket/scene.tif?X-Amz-Signature=feedbeef&sig=c0ffee"
    store.always.append(("PUT", "forbidden"))
    with pytest.raises(OutputError) as caught:
        refine(signed)
    told = [str(caught.value), *caught.value.__notes__, caplog.text]
    told += [path.read_bytes().decode("latin-1") for path in (tmp_path / "work").rglob("*.*")
             if path.is_file()]  # fmt: skip
    store.always.clear()
    # Signed anew, it is the same scene.
    refiner = Recognisable()
    result = refine(signed.replace("feedbeef", "deadbeef"), refiner=refiner)
    assert not refiner.tiles
    told += [store.objects[KEY].decode("latin-1"), repr(result.as_dict())]
    missing = signed.replace("scene.tif", "none.tif")
    told.append(runner().invoke(main, ["info", missing]).stderr)
    for secret in ("feedbeef", "deadbeef", "c0ffee", "a-secret-of-the-tests", "AKIDTESTONLY"):
        assert not any(secret in text for text in told), secret
    assert "none.tif" in told[-1]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("https://example.com/mask.tif", "s3://"),
        ("/vsicurl/https://example.com/mask.tif", "s3://"),
        ("s3://bucket", "BUCKET/NAME"),
        ("s3://", "BUCKET/NAME"),
        ("s3://bucket/out/", "BUCKET/NAME"),
        ("s3://bucket/../mask.tif", "BUCKET/NAME"),
        ("s3://bucket//mask.tif", "BUCKET/NAME"),
        ("s3://bucket/mask.tif?versionId=3", "BUCKET/NAME"),
        (Path("s3://bucket/mask.tif"), "give it as a text"),
        ("/vsis3/bucket/scene.tif", "the output is the input"),
        ("s3://bucket/mask.png", "format"),
    ],
)
def test_places_where_nothing_can_be_written_are_refused(
    store: ObjectStore, scene: Path, output: Any, text: str
) -> None:
    store.objects["bucket/scene.tif"] = scene.read_bytes()
    with pytest.raises(UsageError, match=text):
        refine("s3://bucket/scene.tif", output, overwrite=True)
    assert set(store.objects) == {"bucket/scene.tif"}


PLACES = {"vector": "s3://bucket/out/roads.gpkg", "report": "s3://bucket/out/page.html"}


def same_vectors(store: ObjectStore, local: Path, folder: Path, key: str) -> bool:
    """Whether an object is a vector file with the features of another."""
    fetched = folder / f"fetched{local.suffix}"
    fetched.write_bytes(store.objects[key])
    one, other = geopandas.read_file(fetched), geopandas.read_file(local)
    return len(one) > 0 and one.equals(other)


def test_polygons_and_pages_arrive_too(store: ObjectStore, scene: Path, tmp_path: Path) -> None:
    local = Outputs(vector=tmp_path / "roads.gpkg", report=tmp_path / "page.html")
    refine(scene, tmp_path / "mask.tif", outputs=local)
    result = refine(scene, outputs=Outputs(**PLACES))
    assert (result.vector, result.report, result.manifest) == (*PLACES.values(), None)
    assert set(store.objects) == {KEY, "bucket/out/roads.gpkg", "bucket/out/page.html"}
    assert same_vectors(store, tmp_path / "roads.gpkg", tmp_path, "bucket/out/roads.gpkg")
    page = store.objects["bucket/out/page.html"].decode()
    assert "<html" in page and str(tmp_path / "work") not in page
    assert not left(tmp_path)


@pytest.mark.parametrize("fault", ["busy", "forbidden", "cut", "cut after", "gone", "slow"])
@pytest.mark.parametrize("which", ["roads.gpkg", "page.html"])
def test_polygons_and_pages_that_could_not_be_sent_are_kept_too(
    store: ObjectStore, scene: Path, tmp_path: Path, fault: Fault, which: str
) -> None:
    store.always.append((f"PUT.*{which}", fault))
    if fault != "slow":
        with pytest.raises(OutputError, match=which):
            refine(scene, outputs=Outputs(**PLACES))
        assert KEY in store.objects
        (kept,) = (tmp_path / "work").glob(f"{which}-*/{which}")
        made = kept.read_bytes()
        assert store.objects.get(f"bucket/out/{which}") in ({None, made})
        store.always.clear()
    refiner = Recognisable()
    refine(scene, refiner=refiner, outputs=Outputs(**PLACES))
    assert bool(refiner.tiles) == (fault == "slow") and len(store.objects) == 3
    if fault != "slow":
        assert store.objects[f"bucket/out/{which}"] == made
    assert not left(tmp_path)


@pytest.mark.parametrize("name", ["vector", "report"])
def test_polygons_and_pages_of_others_are_refused_before_any_work(
    store: ObjectStore, scene: Path, tmp_path: Path, name: str
) -> None:
    key = PLACES[name].removeprefix("s3://")
    store.objects[key] = OLD
    refiner = Recognisable()
    with pytest.raises(OutputError, match=f"{PLACES[name]}: exists already"):
        refine(scene, refiner=refiner, outputs=Outputs(**PLACES))
    assert not refiner.tiles and store.objects == {key: OLD} and not left(tmp_path)
    refine(scene, outputs=Outputs(**PLACES), overwrite=True)
    assert store.objects[key] != OLD and len(store.objects) == 3


@pytest.mark.parametrize("name", ["x.shp", "x.xyz"])
def test_what_cannot_be_an_object_is_told_before_any_work(
    store: ObjectStore, scene: Path, tmp_path: Path, name: str
) -> None:
    refiner = Recognisable()
    with pytest.raises(UsageError, match="several files|format"):
        refine(scene, refiner=refiner, outputs=Outputs(vector=f"s3://bucket/{name}"))
    with pytest.raises(UsageError, match="several files|format"):
        vectorize(scene, f"s3://bucket/{name}")
    assert not refiner.tiles and not store.objects and not left(tmp_path)


@pytest.mark.parametrize("name", ["roads.gpkg", "roads.parquet", "roads.fgb"])
def test_a_mask_in_a_store_is_drawn_into_it(store: ObjectStore, tmp_path: Path, name: str) -> None:
    mask = write_raster(tmp_path / "m.tif", np.eye(200, 150, dtype=np.uint8))
    store.objects["bucket/m.tif"] = mask.read_bytes()
    address = f"s3://bucket/out/{name}"
    store.always.append(("PUT", "busy"))
    with pytest.raises(OutputError, match=f"{address}: could not be sent"):
        vectorize("s3://bucket/m.tif", address)
    assert len(store.objects) == 1 and not left(tmp_path)
    store.always.clear()
    assert vectorize("s3://bucket/m.tif", address).output == address
    vectorize(mask, tmp_path / name)
    read = geopandas.read_parquet if name.endswith("parquet") else geopandas.read_file
    (tmp_path / f"f{name}").write_bytes(store.objects[f"bucket/out/{name}"])
    assert read(tmp_path / f"f{name}").equals(read(tmp_path / name))
    assert not left(tmp_path)
    with pytest.raises(OutputError, match=f"{address}: exists already"):
        vectorize("s3://bucket/m.tif", address)
    writing = VectorWriting(overwrite=True)
    with pytest.raises(UsageError, match="the output is an input"):
        vectorize("s3://bucket/m.tif", "/vsis3/bucket/m.tif", writing=writing)
    vectorize("s3://bucket/m.tif", address, writing=writing)
    with pytest.raises(UsageError, match="local GeoPackage"):
        vectorize("s3://bucket/m.tif", address, writing=VectorWriting(append=True))


def test_a_store_without_an_answer_is_told_before_any_work(
    store: ObjectStore, scene: Path, tmp_path: Path
) -> None:
    store.always.append(("GET", "forbidden"))
    refiner = Recognisable()
    with pytest.raises(OutputError, match="cannot be looked at"):
        refine(scene, refiner=refiner)
    assert not refiner.tiles and not left(tmp_path)


@pytest.mark.parametrize("command", ["info", "vectorize", "evaluate"])
def test_other_commands_read_rasters_of_a_store(
    store: ObjectStore, scene: Path, tmp_path: Path, tiny_model: Path, command: str
) -> None:
    truth = write_raster(tmp_path / "truth.tif", np.eye(200, 150, dtype=np.uint8))
    for path in (scene, truth):
        store.objects[f"bucket/{path.name}"] = path.read_bytes()
    scene.unlink(), truth.unlink()
    arguments = {
        "info": ["s3://bucket/scene.tif"],
        "vectorize": ["/vsis3/bucket/truth.tif", "-o", str(tmp_path / "roads.gpkg")],
        "evaluate": ["s3://bucket/scene.tif", "--mask", "s3://bucket/truth.tif", "-m",
                     str(tiny_model)],
    }  # fmt: skip
    result = runner().invoke(main, [command, *arguments[command], "--json"])
    assert result.exit_code == 0, result.stderr
    assert len(store.objects) == 2


@pytest.mark.slow
def test_ctrl_c_is_answered_while_a_mask_is_sent(
    store: ObjectStore, scene: Path, tmp_path: Path, tiny_model: Path
) -> None:
    store.always.append(("PUT", "held"))
    asked = threading.Event()
    store.before = lambda request: asked.set() if request.startswith("PUT") else None
    command = [sys.executable, "-m", "geothresh", "refine", str(scene), "-o", MASK]
    with subprocess.Popen(
        [*command, "-m", str(tiny_model)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert asked.wait(120)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=50)  # before GDAL gives it up
    assert not store.released.is_set()
    assert process.returncode == 130 and "the same command goes on" in told
    (kept,) = (tmp_path / "work").glob("mask.tif-*/mask.tif")
    assert kept.stat().st_size


@pytest.mark.slow
def test_a_server_of_others_takes_it_too(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto.server", reason="needs `pip install 'moto[server,s3]'`")
    serving = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    serving.start()
    try:
        host, port = serving.get_host_and_port()
        theirs = ObjectStore(url=f"http://{host}:{port}")
        theirs.use(monkeypatch)
        monkeypatch.setenv(staging.WORK, str(tmp_path / "work"))
        urlopen(Request(f"{theirs.url}/bucket", method="PUT")).close()
        refine(scene)
        with pytest.raises(OutputError, match="exists already"):
            refine(scene)
        refine(scene, overwrite=True)
        refine(scene, tmp_path / "mask.tif")
        assert is_same(Address("", f"/vsis3/{KEY}"), tmp_path / "mask.tif")
        with pytest.raises(OutputError, match="bucket does not exist"):
            refine(scene, "s3://nothing/mask.tif")
        # In parts, over an old object; and a list of more names than one answer holds.
        monkeypatch.setattr(objects, "PART", 6 * 2**20)
        large = tmp_path / "large.gpkg"
        large.write_bytes(np.random.default_rng(0).bytes(13 * 2**20))
        address = Address.of("s3://bucket/many/large.gpkg")
        send(scene, address, replace=False)
        send(large, address, replace=True)
        assert is_same(address, large)
        for number in range(1100):
            place = f"{theirs.url}/bucket/many/t{number:04}.tif"
            urlopen(Request(place, method="PUT", data=b"x")).close()
        names = files_in("/vsis3/bucket/many")
        assert len(names) == 1101 and names[-1] == "t1099.tif"
    finally:
        serving.stop()


def test_work_directories_have_names_that_file_systems_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A leaf of two-byte letters fits in 255 bytes; a relative cache directory is ignored."""
    monkeypatch.delenv(staging.WORK, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    address = Address.of("s3://bucket/" + "\u4e16" * 80 + ".tif")
    assert address is not None
    staging.work_directory_of(address).mkdir(parents=True)
    assert len(staging.work_directory_of(address).name.encode()) <= 60 + 17
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert staging.work_home().is_absolute()
