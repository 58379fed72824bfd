"""``geothresh info`` and ``geothresh model list``: does a model read such pixels?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import Affine

from geothresh.cli import main
from tests.support.cli_runner import runner
from tests.support.rasters import write_raster


def told(*arguments: Any) -> dict[str, str]:
    result = runner().invoke(main, ["info", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    parts = [line.split("  ", 1) for line in result.stdout.splitlines()]
    return {name: value.strip() for name, value in parts}


def scene(path: Path, metres: float, **options: Any) -> Path:
    values = np.zeros((60, 80), np.float32)
    values[20:30] = 0.9
    values[:15] = np.nan
    place = {"transform": Affine(metres, 0, 500000, 0, -metres, 5000000)}
    return write_raster(path, values, **place | options)


@pytest.mark.parametrize(
    ("metres", "fits", "fit"),
    [
        (1, "yes", "pixels of 1 m are within the model's, 0.8 to 2.08 m: read as they are"),
        (0.3, "yes", "pixels of 0.3 m are smaller than the model's, 0.8 to 2.08 m: resampled, "
         "and read at 0.8 m"),
        (30, "no", "pixels of 30 m do not fit: 14.4 times larger than the model's, 0.8 to 2.08 m, "
         "and at most 8 times are bridged; use a model trained nearer to this size"),
    ],
)  # fmt: skip
def test_info_tells_whether_the_model_reads_such_pixels(
    tmp_path: Path, metres: float, fits: str, fit: str
) -> None:
    facts = told(scene(tmp_path / "scene.tif", metres))
    assert (facts["model"], facts["fits"], facts["fit"]) == ("roads", fits, fit)


def test_nan_is_told_as_nodata(tmp_path: Path) -> None:
    path = scene(tmp_path / "scene.tif", 1)
    facts = told(path)
    assert facts["nodata"] == "NaN and infinities"
    assert facts["data share"] == "75 % of the pixels that were looked at"
    assert told(path, "--nodata", "-1")["nodata"] == "-1.0, and NaN and infinities"
    json_facts = json.loads(runner().invoke(main, ["info", str(path), "--json"]).stdout)
    assert json_facts["data_share"] == 0.75 and json_facts["fits"] is True


def test_without_a_place_the_foreground_is_measured(tmp_path: Path) -> None:
    facts = told(scene(tmp_path / "scene.tif", 1, crs=None, transform=None))
    assert facts["fit"].startswith("foreground ") and facts["fits"] in ("yes", "no")


def test_many_are_a_table_with_totals(tmp_path: Path) -> None:
    scene(tmp_path / "a.tif", 1)
    scene(tmp_path / "b.tif", 30)
    result = runner().invoke(main, ["info", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    heading, *rows, total, unfit = result.stdout.splitlines()
    assert heading.split() == ["file", "size", "type", "read", "as", "pixel", "data", "fits"]
    assert [row.split("  ")[0] for row in rows] == [str(tmp_path / f"{k}.tif") for k in "ab"]
    assert rows[0].endswith("80 x 60  float32  float32 in [0, 1], as it is  1 m    75 %  yes")
    assert rows[1].endswith("  30 m   75 %  no")
    assert total == "2 files, 9,600 pixels, 2 pixel grids"
    assert unfit.startswith(f"1 file unlike what the model roads reads, first {tmp_path / 'b.tif'}")


def test_how_far_the_look_at_many_is_is_told(tmp_path: Path) -> None:
    import tqdm  # noqa: F401 (what is loaded decides how lines are written)

    for name in "abc":
        scene(tmp_path / f"{name}.tif", 1)
    result = runner().invoke(main, ["info", str(tmp_path), "--progress", "json"])
    assert result.exit_code == 0, result.output
    last = [json.loads(line) for line in result.stderr.splitlines()][-1]
    assert (last["kind"], last["event"], last["unit"]) == ("info", "end", "file")
    assert (last["done"], last["total"]) == (3, 3)
    assert runner().invoke(main, ["info", str(tmp_path)]).stderr == ""


def test_bad_files_are_named_below_the_table_and_end_in_code_3(tmp_path: Path) -> None:
    good, bad = scene(tmp_path / "a.tif", 1), tmp_path / "b.tif"
    bad.write_bytes(b"no raster")
    result = runner().invoke(main, ["info", str(good), str(bad)])
    assert result.exit_code == 3 and result.stderr == ""
    assert result.stdout.splitlines()[2:] == [
        "1 file, 4,800 pixels, 1 pixel grid",
        "1 file that cannot be read:",
        f"  {bad}: is not a TIFF; give a GeoTIFF",
    ]
    as_json = runner().invoke(main, ["info", str(good), str(bad), "--json"])
    assert as_json.exit_code == 3
    facts = json.loads(as_json.stdout)
    alone = json.loads(runner().invoke(main, ["info", str(good), "--json"]).stdout)
    assert facts["files"] == [alone] and facts["grids"] == 1
    assert [one["name"] for one in facts["bad"]] == [str(bad)]


def test_where_no_file_can_be_read_all_are_named(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{k}.tif") for k in "ab"]
    result = runner().invoke(main, ["info", *names])
    assert result.exit_code == 3
    assert all(f"{name}: no such file" in result.stdout for name in names)


def test_the_list_of_models_says_what_they_are_for() -> None:
    lines = runner().invoke(main, ["model", "list"]).stdout.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines)
    assert told["roads"] == "9.6 MB   roads and streets, pixels of 0.8 to 2.08 m"


def test_a_raster_is_not_written_under_the_name_of_another_format(tmp_path: Path) -> None:
    path = scene(tmp_path / "scene.tif", 1)
    out = tmp_path / "z.PNG"
    result = runner().invoke(main, ["refine", str(path), "-o", str(out)])
    assert result.exit_code == 2 and not out.exists()
    assert result.stderr == (
        f"Error: {out}: a GeoTIFF is written, and .PNG is the ending of another format; "
        "name it z.tif\n"
    )
