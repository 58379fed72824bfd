"""Pages: whole, escaped, and with nothing in them that a browser would have to fetch."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from geothresh.pages import (
    Bar,
    Curve,
    Html,
    Picture,
    Section,
    Steps,
    bars,
    diagonal,
    facts,
    figure,
    fill,
    gallery,
    histogram,
    joined,
    legend,
    note,
    numbers,
    page,
    slider,
    table,
)
from tests.support.html import require_sound

HOSTILE = "</script><img src=x onerror=\"alert('1')\">&amp;"
PICTURE = Picture(data=b"\x89PNG", kind="png", width=4, height=3, alt=HOSTILE)


def whole(*bodies: Html) -> str:
    return page(HOSTILE, HOSTILE, [Section(key="one", title=HOSTILE, body=joined(bodies))])


def test_what_comes_from_outside_is_escaped_everywhere() -> None:
    text = whole(
        slider(PICTURE, PICTURE, label=HOSTILE, before=HOSTILE, after=HOSTILE, caption=Html("")),
        gallery([figure(PICTURE, fill("<b>$name</b>", name=HOSTILE))]),
        table([HOSTILE, HOSTILE], [(HOSTILE, HOSTILE)], caption=HOSTILE),
        facts({HOSTILE: HOSTILE}),
        numbers({HOSTILE: HOSTILE}),
        legend({HOSTILE: (1, 2, 3)}),
        note(HOSTILE),
        bars([Bar(name=HOSTILE, value=1), Bar(name="b", value=-2)], label=HOSTILE, axis=HOSTILE),
        histogram(
            Steps(name=HOSTILE, counts=[1, 2]),
            Steps(name=HOSTILE, counts=[0, 9]),
            label=HOSTILE,
            axis=HOSTILE,
        ),
        diagonal(
            [Curve(name=HOSTILE, points=[(0.1, 0.2)], counts=[3])],
            label=HOSTILE, across=HOSTILE, up=HOSTILE,
        ),
    )  # fmt: skip
    sound = require_sound(text)
    assert text.count("<script>") == text.count("</script>") == 1
    assert {image["src"] for image in sound.all("img")} == {"data:image/png;base64,iVBORw=="}
    assert sound.all("input")[0]["data-before"] == HOSTILE
    assert HOSTILE in sound.text


def test_the_policy_lets_our_script_run_and_no_other() -> None:
    text = whole(note("x"))
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = require_sound(text).all("meta")[-1]["content"]
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:")


def test_charts_tell_their_numbers_in_tables_too() -> None:
    many = bars(
        [Bar(name=f"m{k}", value=k - 250.0) for k in range(500)], label="gains", axis="points"
    )
    assert "<table" not in many and many.count("<rect") == 500, "too many to be named"
    few = bars([Bar(name="a", value=0.0)], label="gains", axis="points")
    assert "+0.00" in few and "<table" in few
    empty = histogram(Steps(name="input", counts=[0, 0]), label="none", axis="confidence")
    assert "nan" not in empty


def test_names_that_are_no_utf_8_are_shown_and_can_be_written() -> None:
    name = b"caf\xe9.tif".decode("utf-8", "surrogateescape")
    assert fill("<p>$name</p>", name=name).encode() == rb"<p>caf\udce9.tif</p>"


def test_templates_want_every_value() -> None:
    with pytest.raises(KeyError):
        fill("<p>$missing</p>")
    assert fill("$a $b", a=Html("<br>"), b="<br>") == "<br> &lt;br&gt;"
