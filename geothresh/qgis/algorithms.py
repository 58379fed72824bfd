"""The Processing algorithms, which run commands of geothresh and load their outputs with styles.

Only the API that QGIS 3.22 and later versions of QGIS 3 share is used.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)
from qgis.PyQt.QtGui import QIcon

from .arguments import NotFound, command_line, find_executable
from .runner import Canceled, Failed, run
from .vocabulary import Option, Vocabulary

EXECUTABLE = "GEOTHRESH_EXECUTABLE"
"""Name of the setting with the path of the executable."""

MAIN_OUTPUT = {"refine": "mask", "vectorize": "vector", "compare": "changes"}
"""The output that --output names, by command."""

_INPUT = "INPUT"
_RESUMES = (
    "A run that is cancelled keeps its finished work beside its output: run again with the same "
    "parameters and output file, it goes on from there."
)


class Styler(QgsProcessingLayerPostProcessorInterface):
    """Applies to a loaded layer the style that is beside its file or in it."""

    def postProcessLayer(
        self, layer: Any, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Load the style, if there is one."""
        layer.loadDefaultStyle()
        layer.triggerRepaint()


# QGIS deletes an algorithm before its layers are loaded, and Python would free the stylers with it.
# There is one for each layer, as QGIS deletes it with the details of the layer.
_STYLERS: list[Styler] = []


class Algorithm(QgsProcessingAlgorithm):
    """Base of the algorithms. The class variables say which commands and options each has."""

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    HELP: ClassVar[str]
    INPUTS: ClassVar[Mapping[str, str]] = {_INPUT: "Mask"}
    """Titles of input rasters by parameter, in the order of the command."""
    OPTIONS: ClassVar[Mapping[str, Sequence[str]]]
    """Options that are left out besides those of `vocabulary.LEFT_OUT`, by command."""
    SIMPLE: ClassVar[Sequence[str]] = ()
    """Options that are not advanced parameters."""
    RASTERS: ClassVar[Mapping[str, str]] = {}
    """Titles of output rasters by option."""
    OPTIONAL: ClassVar[Sequence[str]] = ()
    """Output rasters that are optional."""
    VECTOR: ClassVar[str] = ""
    """Title of the vector output; empty if there is none."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def createInstance(self) -> Algorithm:
        """Make another instance, for a run."""
        return type(self)(self._vocabulary)

    def name(self) -> str:
        """Name in the id, as in geothresh:refine."""
        return self.NAME

    def displayName(self) -> str:
        """Title in the toolbox."""
        return self.TITLE

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(str(Path(__file__).with_name("icon.svg")))

    def shortHelpString(self) -> str:
        """Help beside the dialog: what the algorithm does, and what each option means."""
        lines = [f"<p>{escape(text)}</p>" for text in self.HELP.split("\n\n")]
        lines += [
            f"<p><b>{escape(option.label)}</b>: {escape(option.help)}</p>"
            for option in self._options()
        ]
        models = ", ".join(self._vocabulary.models)
        lines.append(f"<p>Models that come with geothresh: {escape(models)}.</p>")
        return "".join(lines)

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Make the parameters."""
        for name, title in self.INPUTS.items():
            self.addParameter(QgsProcessingParameterRasterLayer(name, title))
        for option in self._options():
            self._add(option)
        for name, title in self.RASTERS.items():
            optional = name in self.OPTIONAL
            self.addParameter(
                QgsProcessingParameterRasterDestination(
                    name.upper(), title, None, optional, not optional
                )
            )
        if self.VECTOR:
            self.addParameter(QgsProcessingParameterVectorDestination("VECTOR", self.VECTOR))

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Run the commands.

        Returns:
            Paths of the outputs, by parameter; empty if the user has cancelled.

        Raises:
            QgsProcessingException: the command failed; it has the one-line message of the command.
        """
        outputs = self._outputs(parameters, context)
        try:
            lines = self._command_lines(parameters, context, feedback, outputs)
            setting = ProcessingConfig.getSetting(EXECUTABLE) or ""
            executable = find_executable(setting, self._vocabulary.executable)
            for step, line in enumerate(lines):
                share = 100.0 / len(lines)
                run(
                    [*executable, *line], feedback, begin=step * share, end=(step + 1) * share,
                    shown=lambda words: " ".join(map(shlex.quote, words)),
                )  # fmt: skip
        except (Failed, NotFound) as error:
            raise QgsProcessingException(str(error)) from error
        except Canceled:
            return {}
        for path in outputs.values():
            if context.willLoadLayerOnCompletion(path):
                details = context.layerToLoadOnCompletionDetails(path)
                _STYLERS.append(Styler())
                details.setPostProcessor(_STYLERS[-1])
        return {name.upper(): path for name, path in outputs.items()}

    def _options(self) -> list[Option]:
        """The options of all commands, each once."""
        found: dict[str, Option] = {}
        for command, left_out in self.OPTIONS.items():
            for option in self._vocabulary.commands[command].options:
                if option.name not in left_out and option.name not in self.RASTERS:
                    found.setdefault(option.name, option)
        return list(found.values())

    def _add(self, option: Option) -> None:
        parameter = _parameter(option)
        parameter.setHelp(option.help)
        if option.name not in self.SIMPLE:
            advanced = QgsProcessingParameterDefinition.FlagAdvanced
            parameter.setFlags(parameter.flags() | advanced)
        self.addParameter(parameter)

    def _outputs(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, str]:
        """Paths of the outputs that are asked for, by option."""
        found = {}
        for name in [*self.RASTERS, *(["vector"] if self.VECTOR else [])]:
            path = self.parameterAsOutputLayer(parameters, name.upper(), context)
            if path:
                found[name] = path
        return found

    def _command_lines(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        outputs: Mapping[str, str],
    ) -> list[list[str]]:
        """Make the command lines in the order in which they run, without the executable."""
        command = next(iter(self.OPTIONS))
        inputs = [self._raster(parameters, name, context) for name in self.INPUTS]
        values = self._values(parameters, context, feedback)
        return [self._line(command, inputs, outputs, values)]

    def _line(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Mapping[str, str],
        values: Mapping[str, Any],
    ) -> list[str]:
        """Make the command line of one command, with the outputs and values that it takes."""
        command = self._vocabulary.commands[name]
        left_out = self.OPTIONS[name]
        flags = {o.name: o.flag for o in command.options if o.name not in left_out}
        flags[MAIN_OUTPUT[name]] = "--output"
        own = {key: value for key, value in values.items() if key not in left_out}
        named = {flags[key]: path for key, path in outputs.items() if key in flags}
        return command_line(command, inputs, named, own)

    def _raster(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> str:
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"{layer.name()}: a layer of the provider {layer.providerType()} is no file that "
                "geothresh can read; save it as a GeoTIFF first"
            )
        # Open options may follow the path.
        return str(layer.source()).split("|", maxsplit=1)[0]

    def _values(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """The values of the options as the command line takes them; None = not given."""
        found: dict[str, Any] = {}
        for option in self._options():
            name = option.parameter
            if parameters.get(name) is None and option.kind != "flag":
                continue
            if option.kind == "flag":
                found[option.name] = self.parameterAsBool(parameters, name, context)
            elif option.kind == "choice":
                found[option.name] = self.parameterAsEnumString(parameters, name, context)
            elif option.kind == "whole":
                found[option.name] = self.parameterAsInt(parameters, name, context)
            elif option.kind == "number":
                found[option.name] = self.parameterAsDouble(parameters, name, context)
            elif option.kind == "bounds":
                found[option.name] = self._bounds(parameters, name, context)
            elif option.name == "confidence":
                found[option.name] = self._raster(parameters, name, context)
            elif option.name == "report":
                found[option.name] = self.parameterAsFileOutput(parameters, name, context)
            elif option.name == "aoi":
                found[option.name] = self.parameterAsCompatibleSourceLayerPath(
                    parameters, name, context, ["gpkg", "fgb", "geojson", "shp"], "gpkg", feedback
                )
            else:
                found[option.name] = self.parameterAsString(parameters, name, context)
        return found

    def _bounds(
        self, parameters: dict[str, Any], name: str, context: QgsProcessingContext
    ) -> str | None:
        """The bounds in the CRS of the raster, as the command takes them."""
        layer = self.parameterAsRasterLayer(parameters, _INPUT, context)
        extent = self.parameterAsExtent(parameters, name, context, layer.crs())
        if extent.isNull():
            return None
        sides = extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()
        return ",".join(repr(side) for side in sides)


class Refine(Algorithm):
    """``geothresh refine``."""

    NAME, TITLE = "refine", "Refine confidence raster"
    HELP = (
        "Corrects the confidence raster of a binary segmentation network with ThreshNet, and "
        "writes a mask on the same grid: 0 background, 1 foreground, 255 nodata. Confidence is "
        "the probability of the foreground: uint8 as value / 255, floats from 0 to 1, or anything "
        f"else with Scale.\n\n{_RESUMES}"
    )
    INPUTS: ClassVar[Mapping[str, str]] = {_INPUT: "Confidence raster"}
    OPTIONS: ClassVar[Mapping[str, Sequence[str]]] = {"refine": ("vector",)}
    SIMPLE: ClassVar[Sequence[str]] = ("model", "threshold", "resolution", "overwrite")
    RASTERS: ClassVar[Mapping[str, str]] = {
        "mask": "Mask",
        "confidence": "Refined confidence",
        "changes": "Changes",
        "thresholds": "Region-specific thresholds",
    }
    OPTIONAL: ClassVar[Sequence[str]] = ("confidence", "changes", "thresholds")


class RefineAndVectorise(Refine):
    """``geothresh refine``, then ``geothresh vectorize`` of the mask."""

    NAME, TITLE = "refineandvectorise", "Refine and vectorise"
    HELP = (
        "Refines a confidence raster, as Refine confidence raster does, and turns the mask into "
        "polygons or centrelines with the refined confidence in their attributes.\n\n"
        f"{_RESUMES}"
    )
    OPTIONS: ClassVar[Mapping[str, Sequence[str]]] = {
        "refine": ("vector", "changes", "thresholds"),
        # Options about the scene do not apply to its mask.
        "vectorize": ("threshold", "bidx", "scale", "nodata", "allow_vrt"),
    }
    SIMPLE: ClassVar[Sequence[str]] = (
        "model",
        "kind",
        "min_area",
        "min_length",
        "smooth",
        "simplify",
        "overwrite",
    )
    RASTERS: ClassVar[Mapping[str, str]] = {"mask": "Mask", "confidence": "Refined confidence"}
    OPTIONAL: ClassVar[Sequence[str]] = ()
    VECTOR = "Vectors"

    def _command_lines(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        outputs: Mapping[str, str],
    ) -> list[list[str]]:
        refining = super()._command_lines(parameters, context, feedback, outputs)
        values = self._values(parameters, context, feedback)
        return [*refining, self._line("vectorize", [outputs["mask"]], outputs, values)]


class Vectorise(Algorithm):
    """``geothresh vectorize``."""

    NAME, TITLE = "vectorise", "Vectorise mask (polygons, centrelines)"
    HELP = (
        "Turns the foreground of a mask into polygons or centrelines. A mask is of 0 "
        "(background), 1 (foreground) and 255 (nodata); confidences are accepted with Threshold. "
        "Each polygon has its area and perimeter, each centreline its length and width; with "
        "Confidence, their mean and least confidence too."
    )
    OPTIONS: ClassVar[Mapping[str, Sequence[str]]] = {"vectorize": ()}
    SIMPLE: ClassVar[Sequence[str]] = (
        "kind", "confidence", "min_area", "min_length", "smooth", "simplify", "bridge_gaps",
        "overwrite",
    )  # fmt: skip
    VECTOR = "Vectors"


class Compare(Algorithm):
    """``geothresh compare``."""

    NAME, TITLE = "compare", "Compare two masks"
    HELP = (
        "Writes what changed from one mask to another one on the same grid: 0 nothing, 1 became "
        "foreground, 2 became background, 255 nodata in either mask. The counts are in the log."
    )
    INPUTS: ClassVar[Mapping[str, str]] = {_INPUT: "Mask before", "AFTER": "Mask after"}
    OPTIONS: ClassVar[Mapping[str, Sequence[str]]] = {"compare": ()}
    SIMPLE: ClassVar[Sequence[str]] = ("overwrite",)
    RASTERS: ClassVar[Mapping[str, str]] = {"changes": "Changes"}


ALGORITHMS = (Refine, RefineAndVectorise, Vectorise, Compare)
"""The algorithms in the order of the toolbox."""


def _parameter(option: Option) -> QgsProcessingParameterDefinition:
    """Make the parameter of an option; `Algorithm._values` reads its value."""
    name, label, default = option.parameter, option.label, option.default
    if option.kind == "flag":
        return QgsProcessingParameterBoolean(name, label, bool(default))
    if option.kind == "choice":
        return QgsProcessingParameterEnum(
            name, label, list(option.words), False, default, default is None, True
        )
    if option.name == "bidx":
        return QgsProcessingParameterBand(name, label, None, _INPUT, True)
    if option.kind in ("whole", "number"):
        kinds = QgsProcessingParameterNumber
        parameter = QgsProcessingParameterNumber(
            name, label, kinds.Integer if option.kind == "whole" else kinds.Double,
            default, default is None,
        )  # fmt: skip
        if option.least is not None:
            parameter.setMinimum(option.least)
        if option.most is not None:
            parameter.setMaximum(option.most)
        return parameter
    if option.kind == "bounds":
        return QgsProcessingParameterExtent(name, label, None, True)
    if option.name == "confidence":
        return QgsProcessingParameterRasterLayer(name, label, None, True)
    if option.name == "calibration":
        file = QgsProcessingParameterFile.File
        return QgsProcessingParameterFile(name, label, file, "json", None, True)
    if option.name == "report":
        return QgsProcessingParameterFileDestination(
            name, label, "HTML (*.html)", None, True, False
        )
    if option.name == "aoi":
        polygons = [QgsProcessing.TypeVectorPolygon]
        return QgsProcessingParameterFeatureSource(name, label, polygons, None, True)
    return QgsProcessingParameterString(name, label, default, False, default is None)
