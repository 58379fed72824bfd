"""What a page must be, found by the standard library's parser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"meta", "link", "img", "input", "br", "hr"}
_DRAWN = {"path", "rect", "circle"}  # closed by a slash in SVG


class Checked(HTMLParser):
    """A page whose elements are closed in order; collects what tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        if self.open:
            self.faults.append(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in _VOID | _DRAWN:
            self.faults.append(f"<{tag}/> closes nothing in HTML")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another one")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def require_sound(text: str) -> Checked:
    """A page that is whole, small, told to screen readers, and loads nothing."""
    page = Checked(text)
    assert page.faults == []
    assert len(text.encode()) < 5 * 10**6
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
        assert not any(name.startswith("on") for name in attributes), "handlers are not allowed"
    assert not re.search(r"@import|url\(", text)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    for image in page.all("img"):
        assert image["alt"] and image["width"] and image["height"]
    for chart in page.all("svg"):
        assert chart.get("aria-label") or chart.get("aria-hidden")
    for control in page.all("input"):
        assert control["aria-label"]
    assert page.all("html")[0]["lang"] == "en"
    return page
