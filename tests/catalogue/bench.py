"""A directory in which a case is laid out and the command is run, and what has to hold after it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from click.testing import Result
from numpy.typing import NDArray
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

from geothresh.cli import main
from tests.support.cli_runner import runner

# Longer than this is no line that a person reads.
_LONGEST_LINE = 600


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What `Bench.refined` found in the outputs."""

    mask: NDArray[np.uint8]
    """(H, W): 0, 1 and 255 for nodata."""
    confidence: NDArray[np.float64]
    """(H, W): the refined confidence, NaN for nodata."""
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The current directory of one test."""

    place: Path
    """The directory."""
    model: Path
    """A model file that changes no confidence: the network's correction is nought."""

    def run(self, *arguments: Any) -> Result:
        """Run a command line in this process."""
        return runner().invoke(main, [str(argument) for argument in arguments])

    def snapshot(self) -> dict[str, bytes | None]:
        """Every name below the directory, and what the files hold."""
        found = {}
        for path in sorted(self.place.rglob("*")):
            regular = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(self.place))] = path.read_bytes() if regular else None
        return found

    def refused(self, exit_code: int, text: str, *arguments: Any) -> str:
        """Run what must end in `exit_code` and one line with `text`, and leave all as it was."""
        before = self.snapshot()
        result = self.run(*arguments)
        assert result.exit_code == exit_code, result.output
        assert result.stdout == ""
        line = error_line(result.stderr)
        assert text in line, line
        assert self.snapshot() == before
        return line

    def refine_refused(self, exit_code: int, text: str, scene: Any, *options: Any) -> str:
        """`refused` for ``refine``, with the model that fits the small scenes here."""
        given = () if "-m" in options else ("-m", self.model)
        return self.refused(exit_code, text, "refine", scene, *options, *given)

    def refined(
        self,
        scene: Any,
        *options: Any,
        expected: NDArray[Any] | None = None,
        valid: NDArray[np.bool_] | None = None,
        warned: Iterable[str] = (),
        tile: int = 64,
        reference: Any = None,
    ) -> Refined:
        """Refine a scene and check both outputs against it.

        Args:
            scene: as typed.
            options: further arguments.
            expected: (H, W) confidences that must come out where there is data.
            valid: (H, W), True where there is data; everywhere if left out.
            warned: one text for each warning that must be given, and no other.
            tile: side of the tiles.
            reference: the raster to compare the grid with, if it is not the scene itself.
        """
        before = self.snapshot()
        result = self.run(
            "refine", "-o", "out_m.tif", "--confidence-out", "out_c.tif", "-m", self.model,
            "--tile-size", tile, "--overlap", 16, "--overwrite", *options, "--", scene,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert result.stdout == "out_m.tif\n"
        told = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
        wanted = list(warned)
        assert len(told) == len(wanted), told
        for text in wanted:
            assert any(text in line for line in told), (text, told)
        after = self.snapshot()
        outputs = {"out_m.tif", "out_c.tif"}
        assert outputs <= set(after)
        # Several outputs come with a list of them, and with what describes them.
        outputs |= {"out_m.manifest.json", "out_m.qml", "out_c.qml", "out_m.tif.aux.xml"}
        assert set(before) <= set(after) <= set(before) | outputs
        assert all(after[name] == before[name] for name in before if name not in outputs)
        same_grid(scene if reference is None else reference, "out_m.tif")
        same_grid(scene if reference is None else reference, "out_c.tif")
        with Quiet(), rasterio.open("out_m.tif") as dataset:
            mask = dataset.read(1)
        with Quiet(), rasterio.open("out_c.tif") as dataset:
            steps = dataset.read(1)
        if valid is None:
            valid = np.ones(mask.shape, np.bool_)
        np.testing.assert_array_equal(mask != 255, valid)
        np.testing.assert_array_equal(steps != 255, valid)
        assert mask[valid].max(initial=0) <= 1
        confidence = np.where(valid, steps / 254, np.nan)
        if expected is not None:
            off = np.abs(confidence - expected)[valid]
            assert off.max(initial=0) <= 0.5 / 254 + 1e-3, off.max()
        return Refined(mask=mask, confidence=confidence, stderr=result.stderr)


def error_line(stderr: str) -> str:
    """The one error line of a run, which is the last that it said."""
    assert "Traceback" not in stderr, stderr
    lines = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and stderr.splitlines()[-1] == lines[0], stderr
    assert len(lines[0]) < _LONGEST_LINE, lines[0]
    assert "internal fault" not in lines[0], lines[0]
    return lines[0]


class Quiet(warnings.catch_warnings):
    """Without rasterio's own warnings."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)


def same_grid(scene: Any, output: Any) -> None:
    """Size, transform (bit for bit), CRS, control points, RPCs and pixel meaning are equal."""
    with Quiet(), rasterio.open(scene) as one, rasterio.open(output) as other:
        assert (one.width, one.height) == (other.width, other.height)
        assert tuple(one.transform) == tuple(other.transform)
        assert one.crs == other.crs
        points = [
            [(p.row, p.col, p.x, p.y, p.z) for p in dataset.gcps[0]] for dataset in (one, other)
        ]
        assert points[0] == points[1]
        assert one.rpcs == other.rpcs
        assert one.tags().get("AREA_OR_POINT") == other.tags().get("AREA_OR_POINT")
        assert other.nodata == 255 and other.dtypes == ("uint8",) and other.count == 1
