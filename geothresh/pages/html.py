"""Make pieces of HTML from templates that escape their values."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from string import Template


class Html(str):
    """Text that is already HTML, and is not escaped again."""

    __slots__ = ()


def fill(template: str, /, **values: object) -> Html:
    """Fill the placeholders ``$name`` of a template.

    Args:
        template: HTML, written in this package.
        values: values by name; all but `Html` are escaped, for text and quoted attributes. Bytes
            of file names that are no UTF-8 are shown as escapes.

    Example:
        >>> fill('<p title="$name">$name</p>', name='<"x">')
        '<p title="&lt;&quot;x&quot;&gt;">&lt;&quot;x&quot;&gt;</p>'
    """
    return Html(Template(template).substitute({name: _safe(v) for name, v in values.items()}))


def joined(parts: Iterable[Html]) -> Html:
    """Join pieces, each on a line of its own."""
    return Html("\n".join(parts))


def _safe(value: object) -> str:
    if isinstance(value, Html):
        return value
    # A file name may have bytes that are no UTF-8, and the page could not be written.
    return escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))
