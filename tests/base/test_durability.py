"""A base network comes out the same wherever its training was killed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from geothresh.api.train_base import train_base
from geothresh.base.config import BasePlan, BaseRecipe
from geothresh.errors import ModelError, UsageError
from geothresh.training import loop
from tests.support.trainings import Killed, killed_at_a_rename

BASE = BaseRecipe(steps=4, crop_size=64, batch_size=2, precision="fp32")


PLAN = BasePlan(encoder="mobilenet_v2", recipe=BASE, snapshots=1)


def base(folder: Path, name: str, **options: Any) -> Path:
    output = folder / f"{name}.safetensors"
    train_base(folder / "images", output, PLAN, device="cpu", **options)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("apart", [5, 2])
def test_a_base_network_comes_out_the_same_wherever_its_training_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """Not after each rename: a network of this size takes long to build."""
    from tests.support.imagery import image_set

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    image_set(tmp_path / "images", 3)
    whole = base(tmp_path, "whole")
    kill_after = killed_at_a_rename(monkeypatch)
    kills = 1
    while True:
        kills += apart
        kill_after(kills)
        name = f"k{kills}"
        try:
            part = base(tmp_path, name)
        except Killed:
            part = base(tmp_path, name)
        else:
            break
        for ending in (".safetensors", ".step00002.safetensors", ".split.json"):
            one, other = (file.with_name(file.stem + ending) for file in (whole, part))
            assert one.read_bytes() == other.read_bytes(), f"killed at rename {kills}, {ending}"
    assert kills > 8
    assert not [file for file in tmp_path.iterdir() if ".state." in file.name]


def test_a_base_network_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    from tests.support.imagery import image_set

    image_set(tmp_path / "images", 3)

    def stop(step: int, steps: int, loss: float) -> None:
        raise Killed

    with pytest.raises(Killed) as caught:
        base(tmp_path, "m", on_step=stop)
    assert caught.value.__notes__ == ["the same command goes on from the first step"]
    output, data = tmp_path / "m.safetensors", tmp_path / "images"
    other = dataclasses.replace(PLAN, recipe=dataclasses.replace(BASE, steps=9))
    with pytest.raises(ModelError, match=r"another recipe \(steps 4, now 9\)"):
        train_base(data, output, other, device="cpu")
    with pytest.raises(UsageError, match="no run to go on with"):
        train_base(data, tmp_path / "n.safetensors", PLAN, resume=True)
