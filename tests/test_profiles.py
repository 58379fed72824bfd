"""Where QGIS keeps its profiles, and which one it starts with."""

from __future__ import annotations

from pathlib import Path

import pytest

from geothresh.errors import InputError
from geothresh.profiles import choose_profile, profiles_folder


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """A folder of two profiles."""
    folder = tmp_path / "profiles"
    for name in ("default", "Straße 2"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/share/QGIS/QGIS3/profiles"),
        ("linux", {"HOME": "/h", "XDG_DATA_HOME": "/x"}, "/x/QGIS/QGIS3/profiles"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Application Support/QGIS/QGIS3/profiles"),
        ("win32", {"HOME": "/h", "APPDATA": "/a"}, "/a/QGIS/QGIS3/profiles"),
        ("win32", {"HOME": "/h"}, "/h/AppData/Roaming/QGIS/QGIS3/profiles"),
        ("linux", {"HOME": "/h", "QGIS_CUSTOM_CONFIG_PATH": "/q"}, "/q/profiles"),
    ],
)
def test_where_profiles_are(platform: str, variables: dict[str, str], expected: str) -> None:
    assert profiles_folder(variables, platform) == Path(expected)


def test_the_profile_is_the_one_that_qgis_starts_with(profiles: Path) -> None:
    assert choose_profile(profiles) == profiles / "default"
    (profiles / "profiles.ini").write_text("[core]\ndefaultProfile=Straße 2\n", "utf-8")
    assert choose_profile(profiles) == profiles / "Straße 2"
    assert choose_profile(profiles, "default") == profiles / "default"
    (profiles / "profiles.ini").write_text("no settings")
    assert choose_profile(profiles) == profiles / "default"


def test_profiles_that_are_not_there(profiles: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="profile work: .* there are Straße 2, default: name one"):
        choose_profile(profiles, "work")
    with pytest.raises(InputError, match="start QGIS once"):
        choose_profile(tmp_path / "nowhere")
