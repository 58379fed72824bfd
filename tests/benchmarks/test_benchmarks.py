"""The benchmarks that reach into the package still run; what they measure is not looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geothresh.raster.pictures import read_rgb
from tests.support.blobs import write_pairs

BENCHMARKS = Path(__file__).parent


@pytest.mark.parametrize(
    ("command", "told"),
    [
        pytest.param(
            "bench_network.py --rounds 1 --presets small --tiles 1",
            "small  torch fp32, NCHW",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "bench_compile.py --model roads-tiny --repeat 1",
            "yes over no, median of pairs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "bench_fp32.py --threads 1 --rounds 1",
            "| 1 | torch, as refine has it |",
            marks=pytest.mark.slow,
        ),
        ("bench_targets.py --side 128 --repeat 1", "| naive loop |"),
        ("bench_pipeline.py case file engine 1024", '"wall"'),
        ("bench_memory.py case identity 1024 1024", '"peak"'),
        pytest.param(
            "bench_refine.py nodata --tiles 8 --repeat 1",
            "5 of 8 tiles refined",
            marks=pytest.mark.slow,
        ),
        pytest.param("bench_startup.py --repeat 1", "| `geothresh info` |", marks=pytest.mark.slow),
        pytest.param(
            "bench_peers.py --scenes 1 --repeat 1",
            "| loop over windows, torch |",
            marks=pytest.mark.slow,
        ),
        ("bench_overhead.py parts --side 1024 --repeat 1", "| verify |"),
        ("bench_inputs.py vrt --side 1024 --pieces 2 --repeat 1", "| VRT of 4 files |"),
        ("bench_inputs.py http --side 1024", "| sound server |"),
        ("bench_many.py plan --files 40", "| examine |"),
        ("bench_many.py small --files 4", "4 files of 96 x 96: 1 tiles lie over them"),
        pytest.param(
            "bench_many.py speedup --side 1024 --piece 512 --cost 1 --rounds 1",
            "median: two workers",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "bench_many.py borders --side 4096 --piece 1024",
            "in 16 pieces of 1024",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_benchmark_prints_its_figures(command: str, told: str) -> None:
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_the_worst_maps_of_a_row_are_drawn(tmp_path: Path) -> None:
    masks, confidence = write_pairs(tmp_path, range(5))
    maps = tmp_path / "maps" / "roads" / "roads-town"
    maps.mkdir(parents=True)
    masks.rename(maps.parents[2] / "roads-town")
    confidence.rename(maps / "unet")
    ids = sorted(path.stem for path in (maps / "unet").glob("*.png"))
    (tmp_path / "ids").mkdir()
    (tmp_path / "ids" / "roads-town.txt").write_text("\n".join(ids[:4]))
    # Sets number their places alike: that of another set is not one of this.
    (tmp_path / "ids" / "roads-village.txt").write_text(ids[4])
    done = subprocess.run(
        [
            sys.executable, BENCHMARKS / "shortfalls.py", "roads-tiny", "--row", "roads-town/unet",
            "--data", tmp_path, "--maps", tmp_path / "maps",
            "--ids", tmp_path / "ids", "--worst", "1", "-o", tmp_path / "picture.png",
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "roads-town/unet: 4 maps, gain" in done.stdout
    height, width = read_rgb(tmp_path / "picture.png").shape[:2]
    assert height > width > 900, "three maps below each other, three panels each"
