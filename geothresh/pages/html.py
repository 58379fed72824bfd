"""Pieces of HTML, and templates that escape what they are filled with."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from string import Template


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def fill(template: str, /, **values: object) -> Html:
    """Put values in the places of a template that are named by ``$name``.

    Args:
        template: HTML, written in this package.
        values: by name; all but `Html` is escaped, for text and quoted attributes.

    Example:
        >>> fill('<p title="$name">$name</p>', name='<"x">')
        '<p title="&lt;&quot;x&quot;&gt;">&lt;&quot;x&quot;&gt;</p>'
    """
    return Html(Template(template).substitute({name: _safe(v) for name, v in values.items()}))


def joined(parts: Iterable[Html]) -> Html:
    """One piece after the other, on lines of their own."""
    return Html("\n".join(parts))


def _safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))
