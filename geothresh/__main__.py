"""``python -m geothresh`` is ``geothresh``."""

from __future__ import annotations

from geothresh.cli import main

if __name__ == "__main__":
    main(prog_name="geothresh")
