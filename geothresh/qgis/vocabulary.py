"""The options of the commands, as ``geothresh qgis install`` wrote them to a file.

Parameters of algorithms are made from them, so that options are not listed twice: each option of
the command is a parameter, unless `LEFT_OUT` says why not. Imports nothing of QGIS.
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
    "progress": "is what the progress bar is drawn from",
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
    "resume": "is always on: what was cancelled goes on",
}
"""Options of the command that are no parameters, and why not."""


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """As in Python."""
    flag: str
    """As on the command line."""
    no_flag: str
    """The flag that switches off an option that is on by default; empty for all others."""
    kind: str
    """flag, choice, whole, number, word (a number or a word), text, file, bounds or pairs."""
    default: Any
    """None where there is none."""
    help: str
    words: tuple[str, ...] = ()
    """Of a choice."""
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
    """Its text, paragraph by paragraph."""
    options: tuple[Option, ...]

    def option(self, name: str) -> Option:
        """The option of that name; KeyError where there is none."""
        return {option.name: option for option in self.options}[name]


@dataclass(frozen=True)
class Vocabulary:
    """Options, models and executable as of the installation of the plugin."""

    version: str
    """Of geothresh."""
    executable: tuple[str, ...]
    """The command line that runs it."""
    models: tuple[str, ...]
    """The packaged ones."""
    commands: Mapping[str, Command]

    @classmethod
    def load(cls, path: Path | None = None) -> Vocabulary:
        """Read it, by default from beside this module."""
        text = (path or Path(__file__).with_name(FILE)).read_text("utf-8")
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Vocabulary:
        """Take it from what JSON holds."""
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
