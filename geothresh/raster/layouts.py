"""Layouts of data sets of labelled images: the names of their folders and files.

| layout | images | masks |
|---|---|---|
| deepglobe | ``<id>_sat.jpg`` | ``<id>_mask.png`` |
| plain | ``image/<id>.jpg`` | ``mask/<id>.png`` |
| kvasir | ``images/<id>.jpg`` | ``masks/<id>.jpg`` |
| duts | ``DUTS-TR/DUTS-TR-Image/<id>.jpg`` | ``DUTS-TR/DUTS-TR-Mask/<id>.png`` |

and the same with TE for the test half of DUTS. Files may be PNG, JPEG or TIFF. Kvasir-SEG,
CVC-ClinicDB, CVC-ColonDB and ETIS are distributed in the layout kvasir. Each half of DUTS may also
be given alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geothresh.errors import InputError, names, number_of
from geothresh.files import is_directory
from geothresh.options import LayoutOption

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFolders:
    """Folders of images and masks below a data folder, and the suffixes of their names."""

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

    def exist_in(self, folder: Path) -> bool:
        """Whether at least one of the two folders exists."""
        return any(is_directory(folder / part) for part in (self.images, self.masks))


def _duts(half: str, above: str = "") -> PictureFolders:
    return PictureFolders(images=f"{above}{half}-Image", masks=f"{above}{half}-Mask")


#: Layouts by name, each with the folders in which images and masks may be.
LAYOUTS: dict[str, tuple[PictureFolders, ...]] = {
    "plain": (PictureFolders(images="image", masks="mask"),),
    "kvasir": (PictureFolders(images="images", masks="masks"),),
    "duts": (
        _duts("DUTS-TR", "DUTS-TR/"), _duts("DUTS-TE", "DUTS-TE/"), _duts("DUTS-TR"),
        _duts("DUTS-TE"),
    ),
    "deepglobe": (PictureFolders(image_suffix="_sat", mask_suffix="_mask"),),
}  # fmt: skip


def find_masks(folder: Path, layout: LayoutOption = "auto") -> dict[str, Path]:
    """The masks of a data folder by id.

    Args:
        folder: the data folder.
        layout: one of `LAYOUTS`, or "auto": the one whose folders exist, else deepglobe.

    Raises:
        InputError: there are no masks, a layout is incomplete, several layouts are possible, or a
            folder cannot be listed.
    """
    return _gather(folder, layout, "masks", PictureFolders.masks_in)


def find_pictures_of(folder: Path, layout: LayoutOption = "auto") -> dict[str, Path]:
    """The images that belong to the masks of a data folder, by id; arguments as `find_masks`.

    Raises:
        InputError: a layout is incomplete, several layouts are possible, or a folder cannot be
            listed.
    """
    return _gather(folder, layout, "images", PictureFolders.images_in)


def laid_out_pictures(folder: Path) -> dict[str, Path]:
    """The images of a folder in any layout, with or without masks; empty if there are none."""
    for parts in LAYOUTS.values():
        existing = [p for p in parts if p.in_folders and is_directory(folder / p.images)]
        if existing:
            return _joined(folder, [part.images_in(folder) for part in existing])
    return LAYOUTS["deepglobe"][0].images_in(folder)


def _gather(
    folder: Path,
    layout: LayoutOption,
    what: str,
    take: Callable[[PictureFolders, Path], dict[str, Path]],
) -> dict[str, Path]:
    """The masks or images in all existing folders of the layout."""
    parts = _recognised(folder, layout)
    for pictures in parts if parts[0].in_folders else ():
        part = pictures.masks if what == "masks" else pictures.images
        other = pictures.images if what == "masks" else pictures.masks
        if not is_directory(folder / part):
            raise InputError(
                f"{folder}: {other}/ is there, and {part}/, which belongs to it, is not; complete "
                "the data, or say another `layout`"
            )
    found = _joined(folder, [take(pictures, folder) for pictures in parts])
    if not found and what == "masks":
        folders = ", ".join(f"{pictures.masks}/" for pictures in parts if pictures.in_folders)
        raise InputError(
            f"{folder}: no masks; expected "
            + (
                f"pictures in {folders}"
                if folders
                else "<id>_mask.png in it, or a folder mask/, masks/ or DUTS-TR/"
            )
        )
    return found


def _recognised(folder: Path, layout: LayoutOption) -> list[PictureFolders]:
    """The folders of the layout of a data folder that exist; at least one."""
    if layout != "auto":
        parts = LAYOUTS[layout]
        existing = [part for part in parts if not part.in_folders or part.exist_in(folder)]
        if not existing:
            wanted = " and ".join(f"{part}/" for part in (parts[0].images, parts[0].masks))
            raise InputError(
                f"{folder}: not laid out as {layout}: {wanted} are not there; say another `layout`"
            )
        return existing
    with_masks = {
        name: [part for part in parts if is_directory(folder / part.masks)]
        for name, parts in LAYOUTS.items()
        if name != "deepglobe"
    }
    named = [name for name, parts in with_masks.items() if parts]
    if len(named) > 1:
        both = " and ".join(f"{with_masks[name][0].masks}/" for name in named)
        raise InputError(
            f"{folder}: both {both} are there; say which is meant with `layout` {named[0]} or "
            f"{named[1]}"
        )
    if named:
        # A half of DUTS with images alone is reported as incomplete.
        return [part for part in LAYOUTS[named[0]] if part.exist_in(folder)]
    deepglobe = LAYOUTS["deepglobe"][0]
    if not deepglobe.masks_in(folder):
        # Folders of images without masks are an incomplete layout.
        for parts in LAYOUTS.values():
            half = [part for part in parts if part.in_folders and part.exist_in(folder)]
            if half:
                return half
    return [deepglobe]


def _joined(folder: Path, parts: list[dict[str, Path]]) -> dict[str, Path]:
    """Merge dicts of pictures by id; InputError where an id stands in two of them."""
    found: dict[str, Path] = {}
    for part in parts:
        repeated = sorted(found.keys() & part.keys())
        if repeated:
            raise InputError(
                f"{folder}: {number_of(len(repeated), 'id')} in both halves of it: "
                f"{names(repeated)}; give one of them"
            )
        found.update(part)
    return found


def _by_id(folder: Path, suffix: str) -> dict[str, Path]:
    found = picture_files(folder, suffix)
    return {stem.removesuffix(suffix): path for stem, path in found.items()}


def picture_files(folder: Path, tail: str = "") -> dict[str, Path]:
    """Pictures in a folder by stem: those whose stem ends in `tail`, without hidden files.

    Raises:
        InputError: the folder cannot be listed, or two stems differ in case only or not at all.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}); check its path and permissions"
        ) from error
    found: dict[str, Path] = {}
    # Ids that differ only in case are the same on file systems that ignore case.
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
    """Whether a file has the name of a picture and is not hidden."""
    return path.suffix.lower() in ENDINGS and not is_hidden(path)


def is_hidden(path: Path) -> bool:
    """Whether a name begins with a dot."""
    # macOS writes ._NAME, which is no picture, beside files on foreign disks.
    return path.name.startswith(".")
