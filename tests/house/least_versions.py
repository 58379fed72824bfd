"""Print constraints that hold every dependency at its lower bound in pyproject.toml.

python tests/house/least_versions.py > least.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Tools that look at the source are no part of what must run with old versions.
TOOLS = {"bandit", "mypy", "ruff", "types-tqdm"}


def least_versions(pyproject: str) -> dict[str, str]:
    """The lower bound of each dependency, those of the extras too, by its name."""
    project = tomllib.loads(pyproject)["project"]
    found: dict[str, str] = {}
    for line in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", line).groups()
        if name not in TOOLS and found.setdefault(name, bound) != bound:
            raise ValueError(f"{name}: two lower bounds, {found[name]} and {bound}")
    return found


if __name__ == "__main__":
    for name, bound in least_versions((ROOT / "pyproject.toml").read_text("utf-8")).items():
        print(f"{name}=={bound}")
