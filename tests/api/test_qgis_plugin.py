"""The plugin put into profiles of QGIS, and taken out of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from geothresh.api import qgis_plugin
from geothresh.api.qgis_plugin import (
    PLUGIN,
    install_plugin,
    uninstall_plugin,
)
from geothresh.cli import main
from geothresh.errors import OutputError
from tests.support.cli_runner import runner


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two profiles, which is that of the user."""
    folder = tmp_path / "profiles"
    for name in ("default", "Straße 2"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setenv("QGIS_CUSTOM_CONFIG_PATH", str(tmp_path))
    return folder


def test_the_command_installs_renews_and_removes(profiles: Path) -> None:
    folder = profiles / "default" / "python" / "plugins" / PLUGIN
    first = runner().invoke(main, ["qgis", "install"])
    assert (first.exit_code, first.stdout) == (0, f"{folder}\n")
    assert "tick geothresh in Plugins" in first.stderr
    names = sorted(os.listdir(folder))
    assert {"__init__.py", "metadata.txt", "icon.svg", "vocabulary.json"} <= set(names)
    assert json.loads((folder / "vocabulary.json").read_text())["commands"]["refine"]["options"]
    (folder / "of_an_earlier_version.py").touch()
    again = runner().invoke(main, ["qgis", "install", "--json"])
    assert json.loads(again.stdout) == {
        "profile": "default", "folder": str(folder), "replaced": True,
    }  # fmt: skip
    assert sorted(os.listdir(folder)) == names
    gone = runner().invoke(main, ["qgis", "uninstall"])
    assert (gone.exit_code, gone.stdout) == (0, f"{folder}\n")
    assert os.listdir(folder.parent) == []
    assert runner().invoke(main, ["qgis", "uninstall"]).exit_code == 3


def test_another_profile(profiles: Path) -> None:
    result = install_plugin({}, profile="Straße 2")
    assert result.folder.parent.parent.parent == profiles / "Straße 2"
    unknown = runner().invoke(main, ["qgis", "install", "--profile", "work"])
    assert unknown.exit_code == 3
    assert unknown.stderr.endswith("there are Straße 2, default: name one with --profile\n")


@pytest.mark.parametrize("what", ["folder", "link", "file", "other plugin"])
def test_what_is_not_ours_stays(profiles: Path, tmp_path: Path, what: str) -> None:
    folder = profiles / "default" / "python" / "plugins" / PLUGIN
    folder.parent.mkdir(parents=True)
    if what == "link":
        folder.symlink_to(tmp_path)
    elif what == "file":
        folder.touch()
    else:
        folder.mkdir()
        if what == "other plugin":
            (folder / "metadata.txt").write_text("[general]\nname=another\n")
    for change in (lambda: install_plugin({}), uninstall_plugin):
        with pytest.raises(OutputError, match="not a plugin that geothresh has installed"):
            change()
    assert os.path.lexists(folder) and os.listdir(folder.parent) == [PLUGIN]


def test_an_installation_that_fails_leaves_the_earlier_one(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install_plugin({"earlier": 1}).folder

    def full(made: Path) -> None:
        made.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(qgis_plugin, "_copy_sources", full)
    with pytest.raises(OutputError, match="No space left on device"):
        install_plugin({})
    assert json.loads((folder / "vocabulary.json").read_text()) == {"earlier": 1}
    assert os.listdir(folder.parent) == [PLUGIN]
