"""Install the QGIS plugin into a profile of QGIS, or remove it."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.errors import InputError, OutputError
from geothresh.profiles import choose_profile, profiles_folder

PLUGIN = "geothresh_qgis"
"""Name of the plugin's folder, by which QGIS knows it. It is not geothresh: QGIS imports plugins as
packages of its Python, where the package geothresh may be installed too."""

_SOURCES = Path(__file__).parent.parent / "qgis"
_VOCABULARY = "vocabulary.json"
_ENDINGS = (".py", ".svg", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The profile and folder in which the plugin was installed."""

    profile: str
    """Name of the profile."""
    folder: Path
    """The plugin's folder in it."""
    replaced: bool
    """Whether an earlier version was replaced."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {"profile": self.profile, "folder": str(self.folder), "replaced": self.replaced}


def install_plugin(vocabulary: Mapping[str, Any], *, profile: str | None = None) -> Installed:
    """Install the plugin into a profile of QGIS, in place of an earlier version.

    The folder is replaced when the new one is complete; if that fails, the earlier one stays.

    Args:
        vocabulary: the options of the commands for the plugin, as JSON types.
        profile: name of the profile; None = the one that QGIS starts with.

    Returns:
        The profile, and the plugin's folder in it.

    Raises:
        InputError: there is no such profile.
        OutputError: something else is in its place, or it cannot be written.
    """
    home = choose_profile(profiles_folder(), profile)
    folder = home / "python" / "plugins" / PLUGIN
    replaced = _require_ours(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{PLUGIN}-") as temporary:
            made, old = Path(temporary) / PLUGIN, Path(temporary) / "old"
            _copy_sources(made)
            (made / _VOCABULARY).write_text(json.dumps(vocabulary, indent=1) + "\n", "utf-8")
            if replaced:
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                if replaced:
                    old.rename(folder)
                raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from error
    return Installed(profile=home.name, folder=folder, replaced=replaced)


def uninstall_plugin(*, profile: str | None = None) -> Path:
    """Remove the plugin from a profile of QGIS.

    Args:
        profile: name of the profile; None = the one that QGIS starts with.

    Returns:
        The folder that was removed.

    Raises:
        InputError: there is no such profile, or no plugin in it.
        OutputError: something else is in its place, or it cannot be removed.
    """
    home = choose_profile(profiles_folder(), profile)
    folder = home / "python" / "plugins" / PLUGIN
    if not _require_ours(folder):
        raise InputError(f"{folder}: the plugin is not installed in the profile {home.name}")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be removed ({error.strerror})") from error
    return folder


def _copy_sources(folder: Path) -> None:
    folder.mkdir()
    for source in sorted(_SOURCES.iterdir()):
        if source.suffix in _ENDINGS:
            shutil.copyfile(source, folder / source.name)


def _require_ours(folder: Path) -> bool:
    """Whether the plugin is installed; OutputError where something else is in its place."""
    if not os.path.lexists(folder):
        return False
    about = configparser.ConfigParser(interpolation=None)
    if not folder.is_symlink():
        try:
            about.read(folder / "metadata.txt", "utf-8")
        except (configparser.Error, UnicodeDecodeError):
            about.clear()
    if about.get("general", "name", fallback=None) != "geothresh":
        raise OutputError(f"{folder}: is not a plugin that geothresh has installed; move it away")
    return True
