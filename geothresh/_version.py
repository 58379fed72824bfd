"""The version, read by the build and said by every file that geothresh writes."""

from __future__ import annotations

__version__ = "0.1.0"
