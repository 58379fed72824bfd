"""HTML pages that hold all they need: text, pictures, charts, in one file without a network.

Every text that is put into a page is escaped, but for what was made here (`Html`).
"""

from geothresh.pages.charts import Bar, Curve, Steps, bars, diagonal, histogram
from geothresh.pages.html import Html, fill, joined
from geothresh.pages.page import Section, page
from geothresh.pages.parts import (
    Picture,
    facts,
    figure,
    gallery,
    legend,
    note,
    numbers,
    preformatted,
    slider,
    table,
)

__all__ = [
    "Bar",
    "Curve",
    "Html",
    "Picture",
    "Section",
    "Steps",
    "bars",
    "diagonal",
    "facts",
    "figure",
    "fill",
    "gallery",
    "histogram",
    "joined",
    "legend",
    "note",
    "numbers",
    "page",
    "preformatted",
    "slider",
    "table",
]
