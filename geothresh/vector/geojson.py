"""Refuse GeoJSON that links to its CRS, which GDAL would fetch from the network.

RFC 7946 knows no other CRS than longitude and latitude; what it replaced had a member ``crs``, by
name or by link. GDAL follows the link, wherever it leads, and no option forbids it to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geothresh.errors import InputError

_LINKS = ("link", "url")


class _Link:
    """Stands for an object that names an address."""


def refuse_links(file: Path) -> None:
    """Raise InputError where a GeoJSON is not strictly JSON, or fetches its CRS from somewhere.

    GDAL is more lenient than the standard; what only GDAL can read could hide a link.
    """
    found = False

    def look(members: list[tuple[str, Any]]) -> _Link | None:
        nonlocal found
        for name, value in members:
            # GDAL does not tell case apart.
            if name.lower() == "crs" and isinstance(value, _Link):
                found = True
        kinds = [value for name, value in members if name.lower() == "type"]
        is_link = any(isinstance(kind, str) and kind.lower() in _LINKS for kind in kinds)
        # Nothing else is kept, so that a large file takes no more memory than its text.
        return _Link() if is_link else None

    try:
        # Old programs wrote attributes in encodings of their own; they are not looked at.
        text = file.read_bytes().decode("utf-8-sig", errors="replace")
        json.loads(text, object_pairs_hook=look)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file}: is no GeoJSON ({error}); check that it is complete, or convert it with "
            "ogr2ogr"
        ) from error
    if found:
        raise InputError(
            f"{file}: names its CRS by a link, which would be fetched from the network; write it "
            "again with ogr2ogr -t_srs EPSG:4326"
        )
