"""The options of the commands, as ``geothresh qgis install`` wrote them to a file.

Parameters of algorithms are made from them, so that options are not listed twice. Each option of a
command is a parameter, except those of `LEFT_OUT`. Nothing of QGIS is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "vocabulary.json"

_TERMINAL = "is for terminals"
LEFT_OUT: Mapping[str, str] = {
    "as_json": _TERMINAL,
    "debug": _TERMINAL,
    "no_progress": _TERMINAL,
    "progress": "is used to draw the progress bar",
    "quiet": _TERMINAL,
    "verbose": _TERMINAL,
    "layers": "is for many files",
    "output_dir": "is for many files",
    "piece": "is for many files",
    "separately": "is for many files",
    "skip_bad": "is for many files",
    "update": "is for many files",
    "append": "adds to a file, where outputs of QGIS are files of their own",
    "format": "is told by the ending of the output",
    "match_resolution": "is another word for resolution=auto",
    "output": "is a parameter of its own",
    "overwrite_layer": "adds to a file, where outputs of QGIS are files of their own",
    "parents": "is for scripts",
    "resume": "is always on: a cancelled run is resumed",
}
"""Options of the commands that are not parameters, and the reason."""


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """Name of the option in Python."""
    flag: str
    """Name of the option on the command line."""
    no_flag: str
    """The flag that switches off an option that is on by default; empty for all others."""
    kind: str
    """flag, choice, whole, number, word (a number or a word), text, file, bounds or pairs."""
    default: Any
    """Default value; None = no default."""
    help: str
    words: tuple[str, ...] = ()
    """The words of a choice."""
    least: float | None = None
    most: float | None = None

    @property
    def parameter(self) -> str:
        """Name of the algorithm's parameter."""
        return self.name.upper()

    @property
    def label(self) -> str:
        """Title in the dialog."""
        return self.name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Command:
    """A command and its options that can be parameters."""

    name: str
    help: str
    """Text of the help, with empty lines between paragraphs."""
    options: tuple[Option, ...]

    def option(self, name: str) -> Option:
        """Find an option by name; KeyError if there is none."""
        return {option.name: option for option in self.options}[name]


@dataclass(frozen=True)
class Vocabulary:
    """Options, models and executable at the time when the plugin was installed."""

    version: str
    """Version of geothresh."""
    executable: tuple[str, ...]
    """The first words of a command line that runs geothresh."""
    models: tuple[str, ...]
    """Names of the packaged models."""
    commands: Mapping[str, Command]

    @classmethod
    def load(cls, path: Path | None = None) -> Vocabulary:
        """Read the vocabulary from a file, by default from the one beside this module."""
        text = (path or Path(__file__).with_name(FILE)).read_text("utf-8")
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Vocabulary:
        """Make the vocabulary of the values of a JSON file."""
        commands = {}
        for name, command in stored["commands"].items():
            options = tuple(
                Option(**{**option, "words": tuple(option.get("words", ()))})
                for option in command["options"]
                if option["name"] not in LEFT_OUT
            )
            commands[name] = Command(name=name, help=command["help"], options=options)
        return cls(
            version=stored["version"],
            executable=tuple(stored["executable"]),
            models=tuple(stored["models"]),
            commands=commands,
        )
