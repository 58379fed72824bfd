"""Layouts of data sets of labelled images: the names of their folders and files.

| layout | images | masks |
|---|---|---|
| deepglobe | ``<id>_sat.jpg`` | ``<id>_mask.png`` |
| plain | ``image/<id>.jpg`` | ``mask/<id>.png`` |
| kvasir | ``images/<id>.jpg`` | ``masks/<id>.jpg`` |
| duts | ``DUTS-TR/DUTS-TR-Image/<id>.jpg`` | ``DUTS-TR/DUTS-TR-Mask/<id>.png`` |

and of DUTS the same with TE. Endings may be any of PNG, JPEG and TIFF. Kvasir-SEG, CVC-ClinicDB,
CVC-ColonDB and ETIS come as kvasir; DUTS-TR and DUTS-TE may be given by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import InputError, names
from geothresh.options import LayoutOption

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where images and masks of a layout are, below the folder that is given."""

    images: str = ""
    masks: str = ""
    image_suffix: str = ""
    """Suffix of an image's stem after its id."""
    mask_suffix: str = ""
    """Suffix of a mask's stem after its id."""

    @property
    def in_folders(self) -> bool:
        """Whether images and masks have folders of their own."""
        return bool(self.masks)

    def masks_in(self, folder: Path) -> dict[str, Path]:
        """The masks by id; InputError where their folder cannot be listed."""
        return _by_id(folder / self.masks, self.mask_suffix)

    def images_in(self, folder: Path) -> dict[str, Path]:
        """The images by id; InputError where their folder cannot be listed."""
        return _by_id(folder / self.images, self.image_suffix)

    def is_there(self, folder: Path) -> bool:
        """Whether any of its folders is there."""
        return any((folder / part).is_dir() for part in (self.images, self.masks))


def _duts(half: str, above: str = "") -> Place:
    return Place(images=f"{above}{half}-Image", masks=f"{above}{half}-Mask")


#: Layouts by name, each with the places where images and masks may be.
PLACES: dict[str, tuple[Place, ...]] = {
    "plain": (Place(images="image", masks="mask"),),
    "kvasir": (Place(images="images", masks="masks"),),
    "duts": (
        _duts("DUTS-TR", "DUTS-TR/"), _duts("DUTS-TE", "DUTS-TE/"), _duts("DUTS-TR"),
        _duts("DUTS-TE"),
    ),
    "deepglobe": (Place(image_suffix="_sat", mask_suffix="_mask"),),
}  # fmt: skip


def find_masks(folder: Path, layout: LayoutOption = "auto") -> dict[str, Path]:
    """The masks of a data folder by id.

    Args:
        folder: of the data.
        layout: one of `PLACES`, or auto: the one whose folders exist, else deepglobe.

    Raises:
        InputError: there are none, a layout is half there, or several are; or a folder cannot be
            listed.
    """
    return _gather(folder, layout, "masks", Place.masks_in)


def find_pictures_of(folder: Path, layout: LayoutOption = "auto") -> dict[str, Path]:
    """The images that belong to the masks of a data folder, by id; arguments as `find_masks`.

    Raises:
        InputError: a layout is half there, or several are; or a folder cannot be listed.
    """
    return _gather(folder, layout, "images", Place.images_in)


def laid_out_pictures(folder: Path) -> dict[str, Path]:
    """The images of a folder in any layout, with or without masks; empty if there are none."""
    for places in PLACES.values():
        there = [place for place in places if place.in_folders and (folder / place.images).is_dir()]
        if there:
            return _joined(folder, [place.images_in(folder) for place in there])
    return PLACES["deepglobe"][0].images_in(folder)


def _gather(
    folder: Path,
    layout: LayoutOption,
    what: str,
    take: Callable[[Place, Path], dict[str, Path]],
) -> dict[str, Path]:
    """Masks or images of all places of the layout that exist."""
    _, places = _recognised(folder, layout)
    for place in places if places[0].in_folders else ():
        part = place.masks if what == "masks" else place.images
        other = place.images if what == "masks" else place.masks
        if not (folder / part).is_dir():
            raise InputError(
                f"{folder}: {other}/ is there, and {part}/, which belongs to it, is not; complete "
                "the data, or say another `layout`"
            )
    found = _joined(folder, [take(place, folder) for place in places])
    if not found and what == "masks":
        folders = ", ".join(f"{place.masks}/" for place in places if place.in_folders)
        raise InputError(
            f"{folder}: no masks; expected "
            + (
                f"pictures in {folders}"
                if folders
                else "<id>_mask.png in it, or a folder mask/, masks/ or DUTS-TR/"
            )
        )
    return found


def _recognised(folder: Path, layout: LayoutOption) -> tuple[str, list[Place]]:
    """The name of a folder's layout, and its places that exist."""
    if layout != "auto":
        places = PLACES[layout]
        there = [place for place in places if not place.in_folders or place.is_there(folder)]
        if not there:
            wanted = " and ".join(f"{part}/" for part in (places[0].images, places[0].masks))
            raise InputError(
                f"{folder}: not laid out as {layout}: {wanted} are not there; say another `layout`"
            )
        return layout, there
    found = {
        name: [place for place in places if (folder / place.masks).is_dir()]
        for name, places in PLACES.items()
        if name != "deepglobe"
    }
    named = [name for name, there in found.items() if there]
    if len(named) > 1:
        both = " and ".join(f"{found[name][0].masks}/" for name in named)
        raise InputError(
            f"{folder}: both {both} are there; say which is meant with `layout` {named[0]} or "
            f"{named[1]}"
        )
    if named:
        # A half of DUTS with images alone is reported as incomplete.
        return named[0], [p for p in PLACES[named[0]] if p.is_there(folder)]
    deepglobe = PLACES["deepglobe"][0]
    if not deepglobe.masks_in(folder):
        # Folders of images alone: a layout that is incomplete.
        for name, places in PLACES.items():
            half = [place for place in places if place.in_folders and place.is_there(folder)]
            if half:
                return name, half
    return "deepglobe", [deepglobe]


def _joined(folder: Path, parts: list[dict[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part in parts:
        repeated = sorted(found.keys() & part.keys())
        if repeated:
            raise InputError(
                f"{folder}: {len(repeated)} ids stand in both halves of it: {names(repeated)}; "
                "give one of them"
            )
        found.update(part)
    return found


def _by_id(folder: Path, suffix: str) -> dict[str, Path]:
    found = picture_files(folder, suffix)
    return {stem.removesuffix(suffix): path for stem, path in found.items()}


def picture_files(folder: Path, tail: str = "") -> dict[str, Path]:
    """Pictures in a folder by their stem; only those whose stem ends in `tail`, none hidden.

    Raises:
        InputError: the folder cannot be listed, or two pictures have one stem, case aside.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
    found: dict[str, Path] = {}
    # Ids that differ in case alone are one on file systems that ignore case.
    taken: dict[str, Path] = {}
    for path in paths:
        if is_picture(path) and path.stem.endswith(tail):
            other = taken.setdefault(path.stem.casefold(), path)
            if other is not path:
                raise InputError(
                    f"{folder}: both {other.name} and {path.name} are there; rename or remove one"
                )
            found[path.stem] = path
    return found


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, and not hidden."""
    return path.suffix.lower() in ENDINGS and not is_hidden(path)


def is_hidden(path: Path) -> bool:
    """Whether a name begins with a dot."""
    # macOS writes ._NAME, which is no picture, beside files on foreign disks.
    return path.name.startswith(".")
