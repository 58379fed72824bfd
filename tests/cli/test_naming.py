"""Options in messages: as Python names them, and as the command that runs spells them."""

from __future__ import annotations

import pytest

from geothresh.cli.naming import as_options
from geothresh.cli.refine import refine


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use `scale=255` or `scale`", "use --scale 255 or --scale"),
        ("add `allow_vrt=True`", "add --allow-vrt"),
        ("`creation_options` and `confidence`", "--co and --confidence-out"),
        ("`resume=False`", "--no-resume"),
        ("`output` is not `scene`", "--output is not SCENE"),
        ("`skip_unpaired` of another command", "--skip-unpaired of another command"),
        ("a`file`.tif, `nothing`", "a`file`.tif, `nothing`"),
    ],
)
def test_an_option_is_spelled_as_it_is_typed(text: str, shown: str) -> None:
    assert as_options(text, refine) == shown


def test_without_a_command_the_shared_options_are_known() -> None:
    assert as_options("`tile_size` and `kind`", None) == "--tile-size and `kind`"
