"""ThreshNet's sizes and its promises: what its patches see, what its batches change."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from geothresh.errors import DeviceLostError, GeothreshError, InputError, ModelError, UsageError
from geothresh.nn.config import PRESETS, NetworkConfig
from geothresh.nn.cuda import recorded_size
from geothresh.nn.device import pick_device
from geothresh.nn.network import ThreshNet, fold, unfold
from geothresh.nn.refiner import TorchRefiner
from tests.support.networks import TINY, network


def operations(config: NetworkConfig, tile: int) -> int:
    """Counted at a quarter of the tile's side: convolutions grow with the area."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ThreshNet(config).eval()(torch.rand(1, 1, tile // 4, tile // 4))
    return 16 * counter.get_total_flops()


def test_full_has_the_papers_size() -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in ThreshNet(PRESETS["full"]).parameters())
    assert parameters == pytest.approx(7.9e6, rel=0.005)
    assert operations(PRESETS["full"], 512) == pytest.approx(299e9, rel=0.005)


def test_small_has_a_twentieth_of_the_operations_of_full() -> None:
    assert operations(PRESETS["small"], 512) <= operations(PRESETS["full"], 512) / 20


@pytest.mark.parametrize("patch", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("shuffle", [1, 2])
def test_every_patch_size_gives_a_tile_of_logits(patch: int, shuffle: int) -> None:
    net = network(dataclasses.replace(TINY, patch=patch, shuffle=shuffle))
    with torch.no_grad():
        logits = net(torch.rand(2, 1, 256, 256))
    assert [part.shape for part in logits] == [(2, 1, 256, 256)] * 2


@pytest.mark.parametrize("shuffle", [1, 2, 4])
def test_no_information_crosses_a_patch_border_in_the_local_decoder(shuffle: int) -> None:
    """Features changed in one patch alone change the local logits of that patch alone."""
    config = dataclasses.replace(TINY, shuffle=shuffle)
    net = network(config)
    generator = torch.Generator().manual_seed(1)
    sides = [256 // (shuffle * 2**level) for level in range(4)]
    features = [
        torch.rand(1, width, side, side, generator=generator)
        for width, side in zip(config.widths, sides, strict=True)
    ]
    changed = []
    for feature, side in zip(features, sides, strict=True):
        patch = side // 4
        other = feature.clone()
        other[:, :, patch : 2 * patch, 2 * patch : 3 * patch] += 1
        changed.append(other)
    with torch.no_grad():
        before, after = (
            F.pixel_shuffle(net.local_decoder(f[3], f[2::-1]), shuffle)[0, 0]
            for f in (features, changed)
        )
        reach = F.pixel_shuffle(net.global_decoder(changed[3], changed[2::-1]), shuffle)
        reach -= F.pixel_shuffle(net.global_decoder(features[3], features[2::-1]), shuffle)
    moved = before != after
    inside = torch.zeros_like(moved)
    inside[64:128, 128:192] = True
    assert moved[inside].float().mean() > 0.5  # not all: some units are off either way
    assert not moved[~inside].any()
    assert (reach[0, 0][~inside] != 0).any(), "the global decoder is to see across the border"


def test_the_number_of_calls_does_not_depend_on_the_patch_size() -> None:
    def calls(patch: int) -> int:
        net = network(dataclasses.replace(TINY, patch=patch))
        with torch.no_grad(), torch.profiler.profile() as profile:
            net(torch.rand(1, 1, 256, 256))
        kernels = ("aten::convolution", "aten::batch_norm", "aten::cat", "aten::add", "aten::mul")
        return sum(event.count for event in profile.key_averages() if event.key in kernels)

    assert calls(16) == calls(32) == calls(64) == calls(128)


def test_fold_and_unfold_are_inverse_and_keep_patches_whole() -> None:
    x = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    folded = fold(x, 2, 3)
    assert folded.shape == (12, 3, 4, 4)
    assert torch.equal(folded[7], x[1, :, 0:4, 4:8])
    assert torch.equal(unfold(folded, 2, 3), x)


@pytest.mark.parametrize("head", ["confidence", "correction"])
def test_a_tile_alone_equals_the_same_tile_in_a_batch(head: str) -> None:
    net = network(dataclasses.replace(TINY, head=head))
    torch.nn.init.normal_(net.global_decoder.head.weight)
    tiles = torch.rand(5, 1, 128, 128)
    with torch.no_grad():
        together = net.refine(tiles)
        alone = torch.cat([net.refine(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_an_untrained_correction_changes_nothing() -> None:
    net = network(dataclasses.replace(TINY, head="correction"))
    tiles = torch.linspace(0, 1, 256).expand(1, 1, 256, 256).contiguous()
    with torch.no_grad():
        torch.testing.assert_close(net.refine(tiles), tiles, rtol=0, atol=1.1e-3)


def test_heads_sigmoid_and_mean_are_fp32_under_autocast() -> None:
    net = network(TINY)
    tiles = torch.rand(1, 1, 128, 128)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = net(tiles)
        refined = net.refine(tiles)
    assert {part.dtype for part in (*logits, refined)} == {torch.float32}
    for values in (*logits, refined):
        # Not merely stored in fp32: rounded to bf16 they would be others.
        assert (values != values.bfloat16().float()).float().mean() > 0.9


def test_the_refiner_owns_evaluation_mode() -> None:
    """Statistics of the norms stay as they are, whatever passes through."""
    weights = network(TINY).state_dict()
    refiner = TorchRefiner(weights, TINY, device="cpu", precision="fp32", batch_size=2)
    before = {name: tensor.clone() for name, tensor in refiner.network.state_dict().items()}
    tiles = np.random.default_rng(0).random((3, 128, 128), np.float32)
    first, second = refiner(tiles), refiner(tiles)
    np.testing.assert_array_equal(first, second)
    assert not refiner.network.training
    assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1
    for name, tensor in refiner.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_all_callers_share_one_thread_for_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would each bring an OpenMP pool of their own, which halves the speed."""
    refiner = TorchRefiner(network(TINY).state_dict(), TINY, device="cpu", precision="fp32")
    forward, threads = refiner._forward, set()

    def watched(tiles: np.ndarray) -> np.ndarray:
        threads.add(threading.get_ident())
        return forward(tiles)

    monkeypatch.setattr(refiner, "_forward", watched)
    tiles = np.random.default_rng(0).random((1, 64, 64), np.float32)
    callers = [threading.Thread(target=refiner, args=(tiles,)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    refiner(tiles)
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = TorchRefiner(
        network(TINY).state_dict(), TINY, device="cpu", precision="fp32", batch_size=8
    )
    forward, asked = refiner._forward, []

    def limited(tiles: np.ndarray) -> np.ndarray:
        asked.append(len(tiles))
        if len(tiles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(tiles)

    tiles = np.random.default_rng(0).random((6, 64, 64), np.float32)
    expected = refiner(tiles)
    monkeypatch.setattr(refiner, "_forward", limited)
    np.testing.assert_allclose(refiner(tiles), expected, atol=1e-5)
    assert asked == [6, 4, 2, 2, 2]

    monkeypatch.setattr(refiner, "_forward", lambda tiles: limited(np.repeat(tiles, 4, axis=0)))
    with pytest.raises(ModelError, match="one tile of 64 x 64 does not fit"):
        refiner(tiles)


def test_memory_that_the_processor_lacks_is_known_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = TorchRefiner(
        network(TINY).state_dict(), TINY, device="cpu", precision="fp32", batch_size=4
    )
    forward, asked = refiner._forward, []

    def limited(tiles: np.ndarray) -> np.ndarray:
        asked.append(len(tiles))
        if len(tiles) > 1:
            torch.empty(2**60, dtype=torch.uint8)  # what torch says itself, on this machine
        return forward(tiles)

    monkeypatch.setattr(refiner, "_forward", limited)
    assert refiner(np.zeros((2, 64, 64), np.float32)).shape == (2, 64, 64)
    assert asked == [2, 2, 1, 1]


def test_tiles_that_may_not_be_written_to_are_taken_without_a_warning() -> None:
    refiner = TorchRefiner(network(TINY).state_dict(), TINY, device="cpu", precision="fp32")
    tiles = np.random.default_rng(0).random((1, 64, 64), np.float32)
    expected = refiner(tiles)
    tiles.setflags(write=False)
    torch.set_warn_always(True)  # else once in a process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(refiner(tiles), expected)
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"precision": "fp8"}, {"device": "tpu"}])
def test_a_refiner_with_options_that_make_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TorchRefiner(network(TINY).state_dict(), TINY, **{"device": "cpu", **options})


def test_tiles_that_are_no_multiple_of_the_patch_are_refused() -> None:
    refiner = TorchRefiner(network(TINY).state_dict(), TINY, device="cpu")
    with pytest.raises(ModelError, match="multiple"):
        refiner(np.zeros((1, 100, 100), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 48}, "patch is 48"),
        ({"patch": 10**9}, "patch is 1000000000"),
        ({"widths": (1, 2)}, "2 widths"),
        ({"blocks": (0, 1, 1, 1)}, "between 1 and 64"),
        ({"head": "eval"}, "head is 'eval'"),
        ({"patch": 16, "shuffle": 4}, "no multiple of 32"),
        ({"shuffle": 0}, "between 1 and 64"),
    ],
)
def test_nonsense_sizes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_configuration_survives_json(tmp_path: Path) -> None:
    for config in PRESETS.values():
        assert NetworkConfig.from_dict(config.as_dict()) == config
    for broken in ({}, {**TINY.as_dict(), "more": 1}, {**TINY.as_dict(), "patch": "64"}):
        with pytest.raises(ModelError):
            NetworkConfig.from_dict(broken)


def test_the_first_model_files_did_not_name_their_branches() -> None:
    old = {k: v for k, v in TINY.as_dict().items() if k != "branches"}
    assert NetworkConfig.from_dict(old) == TINY
    with pytest.raises(ModelError, match="branches is 'none'"):
        NetworkConfig.from_dict({**old, "branches": "none"})


@pytest.mark.parametrize(("branches", "number"), [("global", 0), ("local", 1)])
def test_a_network_of_one_branch_is_that_half_of_the_whole(branches, number: int) -> None:
    whole = ThreshNet(TINY).eval()
    half = ThreshNet(dataclasses.replace(TINY, branches=branches)).eval()
    wanted = half.state_dict()
    assert len(wanted) < len(whole.state_dict())
    half.load_state_dict({name: whole.state_dict()[name] for name in wanted})
    tile = torch.rand(1, 1, 128, 128)
    with torch.no_grad():
        (alone,), both = half(tile), whole(tile)
        assert torch.equal(alone, both[number])
        assert torch.equal(half.refine(tile), both[number].sigmoid())
        mean = (both[0].sigmoid() + both[1].sigmoid()) / 2
        assert torch.equal(whole.refine(tile), mean)


def test_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    net = ThreshNet(TINY, dropout=0.5)
    assert net.state_dict().keys() == ThreshNet(TINY).state_dict().keys()
    tile = torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        assert not torch.equal(net(tile)[0], net(tile)[0])
        net.eval()
        assert torch.equal(net(tile)[0], net(tile)[0])


class _EightTiles:
    """A pool of one stream on a GPU that holds eight tiles, padded as `GraphStream` pads them."""

    def __init__(self, compiled: bool) -> None:
        self.compiled, self.asked = compiled, list[int]()

    def __len__(self) -> int:
        return 1

    @contextmanager
    def free(self) -> Iterator[Any]:
        yield self._run

    def _run(self, tiles: np.ndarray, *, most: int) -> np.ndarray:
        size = recorded_size(len(tiles), most=most, compiled=self.compiled)
        self.asked.append(size)
        if size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles.copy()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_padded_batch_of_a_stream_is_halved_too(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiner = TorchRefiner(network(TINY).state_dict(), TINY, device="cpu", batch_size=32)
    pool = _EightTiles(compiled)
    monkeypatch.setattr(refiner, "_streams", pool)
    tiles = np.random.default_rng(0).random((20, 64, 64), np.float32)
    np.testing.assert_array_equal(refiner(tiles), tiles)
    assert pool.asked[-1] == (8 if compiled else 4) and refiner.batch_size == 8


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), ModelError, "network does not fit in the"),
        (torch.AcceleratorError("CUDA error: out of memory"), ModelError, "end what else runs"),
        (torch.AcceleratorError("CUDA error: launch failure"), DeviceLostError, "is lost"),
    ],
)
def test_a_fault_of_the_device_while_a_network_is_loaded_is_told(
    fault: Exception,
    expected: type[GeothreshError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> Any:
        raise fault

    monkeypatch.setattr(TorchRefiner, "_network", full)
    with pytest.raises(expected, match=message) as caught:
        TorchRefiner({}, TINY, device="cpu")
    assert "device=cpu" not in str(caught.value)


@pytest.mark.parametrize("index", [127, 128, 200, 255])
def test_a_gpu_of_a_number_that_torch_wraps_around_is_not_there(index: int) -> None:
    with pytest.raises((InputError, UsageError), match=f"cuda:{index}"):
        pick_device(f"cuda:{index}")
