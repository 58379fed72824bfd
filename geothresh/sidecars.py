"""Sidecar files of an output: styles for QGIS (``.qml``), GDAL's files, and manifests.

A style that geothresh wrote has a mark with a digest of the rest of the file. A style that was
changed by hand, or saved from QGIS, does not match the digest, and is never replaced or removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from geothresh.errors import OutputError, warn
from geothresh.files import LONGEST_NAME, is_file, write_text

Kind = Literal["raster", "vector"]

RASTER_ENDINGS = (".ovr", ".ovr.aux.xml", ".msk", ".msk.ovr", ".msk.aux.xml", ".aux.xml")
"""Suffixes of GDAL's sidecar files, which follow the name of a raster: ``NAME.tif.ovr``."""

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MARK = re.compile(r"<!-- geothresh (raster|vector) ([0-9a-f]{16}) -->\n")


def signed_style(body: str, kind: Kind) -> str:
    """The text of a style.

    Args:
        body: the element ``qgis``.
        kind: kind of the layer; QGIS looks for the same file for both kinds.

    Example:
        >>> is_ours(signed_style("<qgis/>", "raster"), "raster")
        True
    """
    return _DOCTYPE + _mark(_DOCTYPE + body, kind) + body


def signed_description(inside: str) -> str:
    """The text of an ``.aux.xml`` file.

    Args:
        inside: the content of its element ``PAMDataset``.
    """
    # GDAL requires its element at the beginning, so the mark follows it.
    start = "<PAMDataset>\n"
    end = f"{inside}</PAMDataset>\n"
    return start + _mark(start + end, "raster") + end


def is_ours(text: str, kind: Kind) -> bool:
    """Whether geothresh wrote a style or description of this kind, and it is unchanged."""
    mark = _MARK.search(text)
    return (
        mark is not None
        and mark[1] == kind
        and mark[0] == _mark(text[: mark.start()] + text[mark.end() :], kind)
    )


def _mark(text: str, kind: Kind) -> str:
    return f"<!-- geothresh {kind} {hashlib.sha256(text.encode()).hexdigest()[:16]} -->\n"


def style_path(output: Path) -> Path:
    """Where QGIS looks for the style of a layer: ``NAME.qml``."""
    return output.with_suffix(".qml")


def put_style(output: Path, style: str | None, kind: Kind) -> None:
    """Write a style beside an output; a style that geothresh did not write is kept.

    Args:
        output: the output.
        style: the text of the style; None removes a style that geothresh wrote.
        kind: kind of the output.

    Raises:
        OutputError: the style cannot be written or removed.
    """
    path = style_path(output)
    existing = _read(path)
    if existing == style or (existing is not None and not is_ours(existing, kind)):
        return
    if style is None:
        _remove(path)
    elif _name_fits(path):
        write_text(path, style)


def description_path(raster: Path) -> Path:
    """Where GDAL keeps metadata of a raster: ``NAME.tif.aux.xml``."""
    return raster.with_name(f"{raster.name}.aux.xml")


def put_description(raster: Path, description: str) -> None:
    """Write the ``.aux.xml`` of a raster, unless it exists.

    GDAL adds statistics of the raster to that file. It is removed when the raster is replaced.

    Raises:
        OutputError: the file cannot be written.
    """
    path = description_path(raster)
    if _name_fits(path) and not path.exists():
        write_text(path, description)


def sidecars_of(raster: Path) -> list[Path]:
    """The files of `RASTER_ENDINGS` that exist beside a raster."""
    paths = (raster.with_name(raster.name + ending) for ending in RASTER_ENDINGS)
    return [path for path in paths if _fits(path) and os.path.lexists(path)]


def check_sidecars(raster: Path, *, overwrite: bool) -> None:
    """Refuse an output that would inherit sidecar files of a raster that does not exist any more.

    Args:
        raster: the output.
        overwrite: whether such files may be removed.

    Raises:
        OutputError: there is a file that geothresh did not write, and `overwrite` is False.
    """
    if overwrite or os.path.lexists(raster):
        return
    for path in sidecars_of(raster):
        if path == description_path(raster) and is_ours(_read(path) or "", "raster"):
            continue
        raise OutputError(
            f"{raster}: {path.name} is left of another file of that name, and would be taken for "
            "part of the new one; delete it or add `overwrite=True`"
        )


def manifest_path(mask: Path) -> Path:
    """The JSON file with the digests of a mask and the other outputs of its run."""
    return mask.with_suffix(".manifest.json")


def manifest_text(digests: Mapping[str, str], version: str) -> str:
    """The text of a manifest: the sha256 of each output by name, and the version of geothresh."""
    return json.dumps({"geothresh": version, "sha256": dict(digests)}, indent=2) + "\n"


def files_of_manifest(manifest: Path) -> list[Path] | None:
    """The files that a manifest names; None if there is none, or geothresh did not write it."""
    try:
        content = json.loads(manifest.read_bytes()) if is_file(manifest) else None
    except (OSError, ValueError, RecursionError):  # not readable, or no JSON: the user's own
        return None
    if not isinstance(content, dict) or content.keys() != {"geothresh", "sha256"}:
        return None
    digests = content["sha256"]
    if not isinstance(digests, dict) or not all(_SHA256.match(str(d)) for d in digests.values()):
        return None
    return [manifest.parent / name for name in digests]


def manifests_of(raster: Path) -> list[Path]:
    """The manifest beside a raster that names it, and is false once the raster is replaced."""
    manifest = manifest_path(raster)
    files = files_of_manifest(manifest) or ()
    return [manifest] if any(file.name == raster.name for file in files) else []


def _read(path: Path) -> str | None:
    """Read a small text file; None if it does not exist."""
    if not _fits(path):
        return None
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""  # a directory, or not readable: not written by geothresh


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be removed ({error.strerror}); remove it yourself"
        ) from error


def _fits(path: Path) -> bool:
    return len(os.fsencode(path.name)) <= LONGEST_NAME


def _name_fits(path: Path) -> bool:
    """Whether the name fits the file system; warns if not."""
    if not _fits(path):
        warn(
            f"{path.name}: is longer than a file name can be, so that it is not written; choose a "
            "shorter name for the output to have it"
        )
    return _fits(path)
