"""Many scenes whose outputs go to an object store, one by one, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from geothresh import Many, RefineManyResult
from geothresh.errors import OutputError, UsageError
from tests.support.fakes import FakeSource, Recognisable
from tests.support.many import WINDOWS, run, write_tiles
from tests.support.objects import ObjectStore

OUT = "s3://bucket/out"
NAMES = sorted(f"bucket/out/{name}_mask.tif" for name in WINDOWS)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles")


def refine(tiles: Path, **options: Any) -> RefineManyResult:
    return run([tiles], OUT, **options)


def here(tmp_path: Path) -> list[str]:
    """What is in the directory on this machine."""
    return sorted(path.name for path in (tmp_path / "work").rglob("*") if path.is_file())


def test_each_mask_arrives_as_it_would_be_written_here(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    run([tiles], tmp_path / "local")
    result = refine(tiles)
    assert result.output_dir == OUT and not result.indexes
    assert sorted(store.objects) == NAMES
    for key, content in store.objects.items():
        assert content == (tmp_path / "local" / Path(key).name).read_bytes()
    assert {part.outputs["mask"] for part in result.parts} == {f"s3://{name}" for name in NAMES}
    assert here(tmp_path) == [".geothresh.jsonl"]


def test_scenes_of_a_store_in_a_list_are_refined_too(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    for path in tiles.iterdir():
        store.objects[f"bucket/in/{path.name}"] = path.read_bytes()
    names = [f"s3://bucket/in/{name}.tif" for name in WINDOWS]
    (tmp_path / "list.txt").write_text("\n".join(names))
    result = run([f"@{tmp_path / 'list.txt'}"], "s3://bucket/out/", many=Many(layers="confidence"))
    assert result.scenes == 6 and set(NAMES) < set(store.objects)
    assert len([key for key in store.objects if key.endswith("_confidence.tif")]) == 6


def test_the_same_command_does_nothing_again(store: ObjectStore, tiles: Path) -> None:
    refine(tiles)
    store.asked.clear()
    again = Recognisable()
    result = refine(tiles, model=again)
    assert result.kept == 6 and not again.tiles
    assert {method for method, _ in store.asked} == {"GET"}


@pytest.mark.parametrize("done_to", ["removed", "replaced"])
def test_what_somebody_did_to_an_object_is_seen(
    store: ObjectStore, tiles: Path, done_to: str
) -> None:
    refine(tiles)
    whole = dict(store.objects)
    if done_to == "removed":
        del store.objects[NAMES[2]]
        assert refine(tiles).kept == 5 and store.objects == whole
        return
    store.objects[NAMES[2]] = b"somebody's"
    with pytest.raises(OutputError, match=f"s3://{NAMES[2]}: exists already"):
        refine(tiles)
    assert store.objects[NAMES[2]] == b"somebody's"
    assert refine(tiles, overwrite=True).kept == 0 and store.objects == whole


def test_a_store_that_fails_ends_the_run_which_goes_on(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    store.always.append((f"PUT /{NAMES[3]}", "busy"))
    with pytest.raises(OutputError, match="kept here as") as caught:
        refine(tiles)
    assert "same command" in " ".join(caught.value.__notes__)
    assert NAMES[3] not in store.objects and store.objects
    sent = dict(store.objects)
    store.always.clear()
    rest = Recognisable()
    result = refine(tiles, model=rest)
    assert result.kept == len(sent) and sorted(store.objects) == NAMES
    assert here(tmp_path) == [".geothresh.jsonl"]
    # The one that was finished here was only sent.
    anew = Recognisable()
    refine(tiles, model=anew, overwrite=True)
    assert rest.tiles < anew.tiles * (6 - len(sent)) / 6


def test_on_another_machine_it_replaces_only_what_is_of_the_same_run(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    refine(tiles)
    whole = dict(store.objects)
    shutil.rmtree(tmp_path / "work")
    assert refine(tiles).kept == 0 and store.objects == whole
    shutil.rmtree(tmp_path / "work")
    with pytest.raises(OutputError, match="exists already"):
        refine(tiles, threshold=0.4)
    assert store.objects == whole


def test_outputs_of_scenes_that_are_gone_are_removed_on_update(
    store: ObjectStore, tiles: Path
) -> None:
    refine(tiles)
    (tiles / "p12.tif").unlink()
    with pytest.raises(UsageError, match="other scenes"):
        refine(tiles)
    result = refine(tiles, many=Many(update=True))
    assert result.removed == ("p12",)
    assert sorted(store.objects) == [name for name in NAMES if "p12" not in name]


def test_an_input_is_never_an_output(store: ObjectStore, tiles: Path) -> None:
    store.objects["bucket/out/a.tif"] = (tiles / "p00.tif").read_bytes()
    store.objects["bucket/out/a_mask.tif"] = (tiles / "p01.tif").read_bytes()
    scenes = ["s3://bucket/out/a.tif", "/vsis3/bucket/out/a_mask.tif"]
    with pytest.raises(UsageError, match="is an input and would be an output"):
        run(scenes, OUT, overwrite=True)


def test_polygons_of_all_are_drawn_from_the_store(
    store: ObjectStore, tiles: Path, tmp_path: Path
) -> None:
    local = run([tiles], tmp_path / "local", many=Many(vector=tmp_path / "local.gpkg"))
    result = refine(tiles, many=Many(vector=tmp_path / "roads.gpkg"))
    assert result.features == local.features and (tmp_path / "roads.gpkg").is_file()


@pytest.mark.slow
def test_workers_send_what_they_make(store: ObjectStore, tiles: Path, tmp_path: Path) -> None:
    run([tiles], tmp_path / "local", model=FakeSource(kind="uneven"))
    refine(tiles, model=FakeSource(kind="uneven"), workers=2)
    assert sorted(store.objects) == NAMES
    for key, content in store.objects.items():
        assert content == (tmp_path / "local" / Path(key).name).read_bytes()
    assert here(tmp_path) == [".geothresh.jsonl"]
