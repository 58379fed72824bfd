"""The QGIS plugin: a Processing provider whose algorithms run the command ``geothresh``.

``geothresh qgis install`` copies this folder into a profile of QGIS, with ``vocabulary.json``
beside it: the options of the commands at that time. Nothing in here imports geothresh, which is
not in QGIS's Python; `vocabulary`, `arguments` and `runner` do not need QGIS either. QGIS 3.22 has
Python 3.9.
"""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Make the plugin, for QGIS."""
    from .plugin import Plugin

    return Plugin()
