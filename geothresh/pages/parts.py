"""Make the parts of a section: sliders, figures, tables, facts, legends."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from geothresh.colours import Rgb, hexadecimal
from geothresh.pages.html import Html, fill, joined

_SLIDER = """<figure>
<div class="slider">
<img src="$first" width="$width" height="$height" alt="$first_alt">
<img class="after" src="$second" width="$width" height="$height" alt="$second_alt">
<span class="tag left" aria-hidden="true">$before</span>
<span class="tag right" aria-hidden="true">$after</span>
<span class="edge" aria-hidden="true"></span>
<input type="range" min="0" max="100" step="1" value="50" data-before="$before"
 aria-label="$label: $before on the left, $after on the right">
</div>
$caption
</figure>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An encoded picture."""

    data: bytes
    """Bytes of the picture's file."""
    kind: str
    """``png`` or ``jpeg``."""
    width: int
    """Number of pixels."""
    height: int
    """In pixels."""
    alt: str
    """Description of the picture, for screen readers."""

    @property
    def source(self) -> Html:
        """The picture as a data URL."""
        return Html(f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}")


def slider(
    first: Picture, second: Picture, *, label: str, before: str, after: str, caption: Html
) -> Html:
    """Two pictures of one size over each other, with a slider between them.

    Args:
        first: shown on the left.
        second: shown on the right.
        label: what both show, for screen readers.
        before: short name of the first picture.
        after: short name of the second picture.
        caption: text below; may be empty.
    """
    return fill(
        _SLIDER, first=first.source, second=second.source, width=first.width, height=first.height,
        first_alt=first.alt, second_alt=second.alt, label=label, before=before, after=after,
        caption=_caption(caption),
    )  # fmt: skip


def figure(picture: Picture, caption: Html) -> Html:
    """A picture with a caption."""
    return fill(
        '<figure><img src="$source" width="$width" height="$height" alt="$alt">$caption</figure>',
        source=picture.source, width=picture.width, height=picture.height, alt=picture.alt,
        caption=_caption(caption),
    )  # fmt: skip


def _caption(text: Html) -> Html:
    return fill("<figcaption>$text</figcaption>", text=text) if text else Html("")


def gallery(figures: Iterable[Html]) -> Html:
    """Figures side by side, as many as fit."""
    return fill('<div class="gallery">\n$figures\n</div>', figures=joined(figures))


def note(text: str) -> Html:
    """A remark."""
    return fill('<p class="note">$text</p>', text=text)


def facts(values: Mapping[str, object]) -> Html:
    """A list of names and values."""
    entry = "<div><dt>$name</dt><dd>$value</dd></div>"
    inside = joined(fill(entry, name=name, value=value) for name, value in values.items())
    return fill('<dl class="facts">\n$inside\n</dl>', inside=inside)


def numbers(values: Mapping[str, str]) -> Html:
    """A few large numbers, by name."""
    entry = "<li><b>$value</b> $name</li>"
    inside = joined(fill(entry, name=name, value=value) for name, value in values.items())
    return fill('<ul class="numbers">\n$inside\n</ul>', inside=inside)


def legend(colours: Mapping[str, Rgb]) -> Html:
    """A legend of colours.

    Args:
        colours: red, green and blue, 0 to 255, by the meaning of the colour.
    """
    entry = (
        '<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" '
        'fill="$colour" stroke="currentColor"/></svg>$name</li>'
    )
    inside = joined(
        fill(entry, name=name, colour=hexadecimal(colour)) for name, colour in colours.items()
    )
    return fill('<ul class="legend">\n$inside\n</ul>', inside=inside)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str) -> Html:
    """A table whose first column names the rows; the others are aligned to the right."""
    head = joined(fill('<th scope="col">$text</th>', text=text) for text in headings)
    lines = (joined(_cell(value, first=not k) for k, value in enumerate(row)) for row in rows)
    body = joined(fill("<tr>$cells</tr>", cells=cells) for cells in lines)
    return fill(
        '<div class="scroll" tabindex="0" role="region" aria-label="$caption"><table>'
        "<caption>$caption</caption><thead><tr>$head</tr></thead>\n<tbody>$body</tbody></table></div>",
        caption=caption, head=head, body=body,
    )  # fmt: skip


def _cell(value: object, *, first: bool) -> Html:
    if first:
        return fill('<th scope="row">$value</th>', value=value)
    return fill('<td class="number">$value</td>', value=value)


def hidden(summary: str, body: Html) -> Html:
    """A collapsed part that opens on a click."""
    return fill("<details><summary>$summary</summary>$body</details>", summary=summary, body=body)
