"""Run the notebooks from top to bottom and keep them with what they show.

    python tests/benchmarks/run_notebooks.py [NAME ...]

Each runs in an empty folder of its own; `tests/house/test_notebooks.py` checks what is kept.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from measuring import script_parser
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"


def run(path: Path) -> None:
    """Run one notebook and write it back."""
    notebook = nbformat.read(path, as_version=4)
    metadata = notebook.metadata.copy()  # to which running adds the versions of this machine
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=1800, kernel_name="python3", record_timing=False,
            resources={"metadata": {"path": folder}},
        )  # fmt: skip
        client.execute()
    notebook.metadata = metadata
    nbformat.write(notebook, path)


def main() -> None:
    """Run those that are named, or all."""
    parser = script_parser(__doc__)
    parser.add_argument("name", nargs="*")
    names = parser.parse_args().name or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        print(name, flush=True)
        run(FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
