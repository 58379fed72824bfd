"""Profiles of QGIS: the folders in which it keeps settings and plugins."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from geothresh.errors import InputError, names


def profiles_folder(
    environment: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path:
    """The folder in which QGIS 3 keeps the profiles of this user.

    Args:
        environment: variables; those that QGIS itself goes by.
        platform: as in ``sys.platform``.

    Returns:
        The folder, there or not.

    Example:
        >>> profiles_folder({"XDG_DATA_HOME": "/data"}, "linux").as_posix()
        '/data/QGIS/QGIS3/profiles'
    """
    custom = environment.get("QGIS_CUSTOM_CONFIG_PATH")
    if custom:
        return Path(custom) / "profiles"
    home = Path(environment.get("HOME") or Path.home())
    if platform == "win32":
        data = Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    elif platform == "darwin":
        data = home / "Library" / "Application Support"
    else:
        data = Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "QGIS" / "QGIS3" / "profiles"


def choose_profile(folder: Path, profile: str | None = None) -> Path:
    """The folder of a profile.

    Args:
        folder: of all profiles, see `profiles_folder`.
        profile: its name; None = the one that QGIS starts with.

    Raises:
        InputError: there is none, or none of that name.
    """
    try:
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError:
        there = []
    if not there:
        raise InputError(f"{folder}: there is no profile of QGIS; start QGIS once, which makes one")
    wanted = profile or _default_profile(folder)
    if wanted not in there:
        raise InputError(
            f"profile {wanted}: there is none of that name in {folder}; there are {names(there)}: "
            "name one with `profile`"
        )
    return folder / wanted


def _default_profile(folder: Path) -> str:
    """As QGIS's own profiles.ini has it."""
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(folder / "profiles.ini", "utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return "default"
    return settings.get("core", "defaultProfile", fallback="default")
