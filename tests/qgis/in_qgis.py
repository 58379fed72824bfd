"""Runs in QGIS's own Python, without a window: algorithms of the plugin, and a map of what came.

``python3 in_qgis.py PLUGINS EXECUTABLE JOB``: PLUGINS is the folder that holds the plugin, and JOB
a JSON file with the id of an algorithm, its parameters, and perhaps

- ``picture``: draw all layers of the result into this PNG, over ``background`` (a colour);
- ``cancel_at``: the progress in percent at which the run is cancelled.

Prints one JSON object: results, log, and of each layer that was loaded its name, its source, its
extent, its renderer, and the names of its classes by their values.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProject,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

sys.path += [f"{QgsApplication.prefixPath() or '/usr'}/share/qgis/python/plugins", sys.argv[1]]
_PIXELS = 800


class Feedback(QgsProcessingFeedback):
    """Writes down what it is told, and cancels at some progress."""

    def __init__(self, cancel_at: float) -> None:
        super().__init__(False)
        self.log: list[list[str]] = []
        self.most = 0.0
        self.progressChanged.connect(self._look)
        self._cancel_at = cancel_at

    def _look(self, progress: float) -> None:
        self.most = max(self.most, progress)
        if progress >= self._cancel_at:
            self.cancel()

    def pushInfo(self, info: str) -> None:
        self.log.append(["info", info])

    def pushWarning(self, warning: str) -> None:
        self.log.append(["warning", warning])

    def pushCommandInfo(self, info: str) -> None:
        self.log.append(["command", info])

    def reportError(self, error: str, fatalError: bool = False) -> None:  # noqa: N803
        self.log.append(["error", error])


def draw(path: str, background: str) -> None:
    """All layers of the project, as a map canvas shows them."""
    layers = [node.layer() for node in QgsProject.instance().layerTreeRoot().findLayers()]
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[-1].crs())
    settings.setExtent(layers[-1].extent())
    settings.setOutputSize(QSize(_PIXELS, _PIXELS))
    settings.setBackgroundColor(QColor(background))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(path)


def described(layer: Any) -> dict[str, Any]:
    """A layer that was loaded."""
    box = layer.extent()
    renderer = layer.renderer()
    classes = renderer.classes() if renderer.type() == "paletted" else []
    return {
        "name": layer.name(),
        "source": layer.source(),
        "valid": layer.isValid(),
        "extent": [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()],
        "renderer": renderer.type(),
        "classes": {item.value: item.label for item in classes},
    }


def main() -> None:
    """Run the job."""
    job = json.loads(Path(sys.argv[3]).read_text("utf-8"))
    application = QgsApplication([], False)
    application.initQgis()
    import processing
    from geothresh_qgis import classFactory
    from geothresh_qgis.algorithms import EXECUTABLE
    from processing.core.Processing import Processing
    from processing.core.ProcessingConfig import ProcessingConfig

    Processing.initialize()
    plugin = classFactory(None)
    plugin.initProcessing()
    ProcessingConfig.setSettingValue(EXECUTABLE, sys.argv[2])
    feedback = Feedback(job.get("cancel_at", 101.0))
    results: dict[str, Any] = {}
    error = ""
    try:
        # Into the project that is open.
        results = processing.runAndLoadResults(job["id"], job["parameters"], feedback=feedback)
    except QgsProcessingException as failed:
        error = str(failed)
    layers = QgsProject.instance().mapLayers().values()
    facts = {
        "results": {name: str(value) for name, value in results.items()},
        "error": error,
        "log": feedback.log,
        "most": feedback.most,
        "layers": [described(layer) for layer in layers],
    }
    if job.get("picture") and layers:
        draw(job["picture"], job.get("background", "#ffffff"))
    print(json.dumps(facts))
    sys.stdout.flush()
    plugin.unload()
    QgsProject.instance().clear()
    application.exitQgis()


if __name__ == "__main__":
    main()
