"""Make a page of sections, with style, script, and a policy that lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geothresh._version import __version__
from geothresh.pages.html import Html, fill, joined

_HERE = Path(__file__).parent

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="geothresh $version">
<meta http-equiv="Content-Security-Policy" content="$policy">
<title>$title</title>
<style>$style</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
</header>
<nav aria-label="Sections"><ul>
$links
</ul></nav>
<main id="main">
$sections
</main>
<footer>
<p>Made by geothresh $version. This file holds all that it shows and loads nothing.</p>
</footer>
<script>$script</script>
</body>
</html>
"""
_SECTION = """<section id="$key" aria-labelledby="$key-title">
<h2 id="$key-title">$title</h2>
$body
</section>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page under a heading."""

    key: str
    """Anchor of the section: letters, digits and dashes."""
    title: str
    body: Html


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Make a page.

    Args:
        title: title of the page.
        lead: the most important sentence, below the title.
        sections: the sections in order; links to them are at the top.
    """
    style = Html((_HERE / "page.css").read_text("utf-8"))
    script = Html((_HERE / "page.js").read_text("utf-8"))
    links = joined(fill('<li><a href="#$key">$title</a></li>', key=s.key, title=s.title)
                   for s in sections)  # fmt: skip
    bodies = joined(fill(_SECTION, key=s.key, title=s.title, body=s.body) for s in sections)
    return fill(
        _PAGE, version=__version__, title=title, lead=lead, links=links, sections=bodies,
        style=style, script=script, policy=_policy(script),
    )  # fmt: skip


def _policy(script: str) -> str:
    """Content Security Policy: embedded images and styles, and only the script of this package."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
