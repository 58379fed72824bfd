"""The Processing provider: its algorithms, and the setting with the path of the command."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import ALGORITHMS, EXECUTABLE
from .vocabulary import Vocabulary

_GROUP = "geothresh"


class Provider(QgsProcessingProvider):
    """geothresh in the toolbox of Processing."""

    def load(self) -> bool:
        """Add the setting and the algorithms."""
        ProcessingConfig.settingIcons[_GROUP] = self.icon()
        ProcessingConfig.addSetting(
            Setting(
                _GROUP, EXECUTABLE,
                "Executable geothresh; empty: the one that has installed the plugin, or that of "
                "PATH", "", valuetype=Setting.FILE,
            )
        )  # fmt: skip
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Remove the setting."""
        ProcessingConfig.removeSetting(EXECUTABLE)

    def loadAlgorithms(self) -> None:
        """Add the algorithms, with the options that commands had when the plugin was installed."""
        vocabulary = Vocabulary.load()
        for kind in ALGORITHMS:
            self.addAlgorithm(kind(vocabulary))

    def id(self) -> str:
        """First part of the ids of algorithms, as in geothresh:refine."""
        return "geothresh"

    def name(self) -> str:
        """Name in the toolbox."""
        return "geothresh"

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """The endings of rasters that the command writes."""
        return ["tif"]

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        """The endings of vectors that the command writes, the default first."""
        return ["gpkg", "fgb", "geojson", "shp", "parquet"]
