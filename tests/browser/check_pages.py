"""Pages in a headless Chromium: they load without a complaint, and their sliders move.

    python tests/browser/check_pages.py build/report

makes both pages, of the demo scene and of drawn maps, opens each as on a desk, in the dark and on a
phone, and leaves screenshots beside them. Ends with 1 where something is wrong.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import geothresh
from tests.browser.chromium import Browser, browser, found
from tests.support.blobs import write_pairs

VIEWS = {
    "desk": {"width": 1280, "height": 900, "dark": False},
    "dark": {"width": 1280, "height": 900, "dark": True},
    "phone": {"width": 390, "height": 844, "dark": False},
}
CUT = "getComputedStyle(document.querySelector('.slider')).getPropertyValue('--cut')"
BOX = """(box => [box.x, box.y, box.width, box.height])(
  document.querySelector('.slider').getBoundingClientRect())"""
LUMINANCE = """(() => {
  const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, h1, h2, dt, dd, td, th, figcaption, a:not(.skip)')]
    .map(e => light(getComputedStyle(e).color))
    .map(ink => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05))
    .reduce((least, ratio) => Math.min(least, ratio), 21);
})()"""


def main(folder: Path) -> int:
    """Make the pages and look at them; the number of faults."""
    executable = found()
    if executable is None:
        print("no Chromium: install Debian's chromium, or Google Chrome", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    faults = 0
    with browser(executable) as page:
        for path in (refine_page(folder), evaluate_page(folder)):
            for name, view in VIEWS.items():
                for fault in look(page, path, name, **view):
                    print(f"{path.name}, {name}: {fault}")
                    faults += 1
    print(f"{faults} faults; pages and screenshots: {folder}")
    return min(faults, 1)


def refine_page(folder: Path) -> Path:
    """The demo scene, which the package brings."""
    scene = Path(geothresh.__file__).parent / "data" / "demo_scene.tif"
    report = folder / "refine.html"
    outputs = geothresh.Outputs(report=report, confidence=folder / "confidence.tif")
    geothresh.refine(scene, folder / "mask.tif", outputs=outputs)
    return report


def evaluate_page(folder: Path) -> Path:
    """Blobs, which the model for roads does no good."""
    data, confidence = write_pairs(folder, range(9))
    report = folder / "evaluate.html"
    geothresh.evaluate(
        data, maps=geothresh.Maps(confidence=[confidence]),
        scoring=geothresh.Scoring(report=report),
    )  # fmt: skip
    return report


def look(page: Browser, path: Path, name: str, *, width: int, height: int, dark: bool) -> list[str]:
    """What is wrong with a page at a size of the window."""
    page.complaints.clear()
    page.open(path, width=width, height=height, dark=dark)
    page.screenshot(path.with_name(f"{path.stem}-{name}.png"))
    faults = []
    if page.run("document.scrollingElement.scrollWidth") > width:
        faults.append("is wider than the window")
    if (contrast := page.run(LUMINANCE)) < 4.5:
        faults.append(f"text has a contrast of {contrast:.2f}, less than 4.5")
    if page.run("getComputedStyle(document.body).colorScheme") != "light dark":
        faults.append("does not follow the theme")
    page.run("document.querySelector('.slider').scrollIntoView({block: 'center'})")
    left, top, wide, high = page.run(BOX)
    page.drag((left + wide / 2, top + high / 2), (left + wide / 5, top + high / 2))
    dragged = float(page.run(CUT).rstrip("%"))
    if not 10 <= dragged <= 30:
        faults.append(f"dragging the slider to a fifth gives {dragged:g} %")
    page.run("document.querySelector('.slider input').focus()")
    page.key("ArrowRight")
    if page.run(CUT) != f"{dragged + 1:g}%":
        faults.append(f"the arrow key moves the slider from {dragged:g}% to {page.run(CUT)}")
    page.key("End")
    told = page.run("document.querySelector('.slider input').getAttribute('aria-valuetext')")
    if not told.startswith("100 % of the width shows "):
        faults.append(f"a screen reader is told {told!r}")
    page.screenshot(path.with_name(f"{path.stem}-{name}-moved.png"))
    return faults + page.complaints


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
