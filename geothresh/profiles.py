"""Find the profiles of QGIS: the folders of its settings and plugins."""

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
        environment: environment variables; the same ones are read as by QGIS.
        platform: a value of ``sys.platform``.

    Returns:
        The folder, which need not exist.

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
        folder: the folder of all profiles, see `profiles_folder`.
        profile: name of the profile; None = the one that QGIS starts with.

    Raises:
        InputError: there is no profile, or none of that name.
    """
    try:
        existing = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError:
        existing = []
    if not existing:
        raise InputError(f"{folder}: there is no profile of QGIS; start QGIS once, which makes one")
    wanted = profile or _default_profile(folder)
    if wanted not in existing:
        raise InputError(
            f"profile {wanted}: there is none of that name in {folder}; there are "
            f"{names(existing)}: name one with `profile`"
        )
    return folder / wanted


def _default_profile(folder: Path) -> str:
    """Name of the default profile in QGIS's profiles.ini."""
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(folder / "profiles.ini", "utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return "default"
    return settings.get("core", "defaultProfile", fallback="default")
