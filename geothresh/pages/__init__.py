"""Make HTML pages of text, pictures and charts; each page is a single file that loads nothing.

All text that is put into a page is escaped, except HTML that was made here (`Html`).
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
    "slider",
    "table",
]
