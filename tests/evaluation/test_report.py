"""The report as people read it: its table, its verdict, the thresholds of the refined maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from geothresh.evaluation.gallery import Gallery
from geothresh.evaluation.page import evaluate_page
from geothresh.evaluation.report import Report, SourceReport
from geothresh.evaluation.scoring import Sample, Tally
from geothresh.evaluation.verdict import Verdict
from geothresh.metrics import Counts, boundary_counts
from geothresh.thresholding import THRESHOLDS, cut_mask, kept_confidence, region_target

DISTANCE, PATCH = 2, 16

Figure = Callable[[list[np.ndarray], list[Sample]], float]


def maps(n: int = 5, size: int = 48) -> list[Sample]:
    """Blobs, a confidence that is too low and noisy, and a refined one that is better, yet low."""
    samples = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        field = ndimage.gaussian_filter(rng.normal(size=(size, size)), 4)
        field /= field.std()
        noise = [ndimage.gaussian_filter(rng.normal(size=(size, size)), 2) for _ in range(2)]
        confidence, refined = (
            (1 / (1 + np.exp(-2 * (field - shift + strength * part / part.std())))).astype("f4")
            for shift, strength, part in ((0.9, 0.8, noise[0]), (0.7, 0.3, noise[1]))
        )
        samples.append(
            Sample(id=f"map{seed}", confidence=confidence, truth=field > 0.5, refined=refined)
        )
    return samples


def report_of(samples: list[Sample], keep: float | None = None) -> SourceReport:
    tally = Tally(patch=PATCH, keep=keep, distance=DISTANCE)
    for sample in samples:
        tally.add(sample)
    return tally.report("net")


def ious(masks: list[np.ndarray], samples: list[Sample]) -> np.ndarray:
    pairs = [(m, s.truth) for m, s in zip(masks, samples, strict=True)]
    return np.array([(m & t).sum() / (m | t).sum() for m, t in pairs])


def pooled(masks: list[np.ndarray], samples: list[Sample]) -> float:
    mask, truth = np.stack(masks), np.stack([s.truth for s in samples])
    return float((mask & truth).sum() / (mask | truth).sum())


def two_class(masks: list[np.ndarray], samples: list[Sample]) -> float:
    mask, truth = np.stack(masks), np.stack([s.truth for s in samples])
    return (pooled(masks, samples) + float((~mask & ~truth).sum() / (~mask | ~truth).sum())) / 2


def boundary(masks: list[np.ndarray], samples: list[Sample]) -> float:
    return float(
        np.mean(
            [
                boundary_counts(prediction=m, target=s.truth, distance=DISTANCE).iou()
                for m, s in zip(masks, samples, strict=True)
            ]
        )
    )


FIGURES: dict[str, tuple[str, Figure]] = {
    "": ("miou", lambda masks, samples: float(ious(masks, samples).mean())),
    "_pooled": ("iou_pooled", pooled),
    "_two_class": ("miou_two_class", two_class),
    "_boundary": ("boundary_iou", boundary),
}


@pytest.mark.parametrize("keep", [None, 0.2])
@pytest.mark.parametrize("suffix", FIGURES)
def test_single_thresholds_are_the_best_of_19_by_each_measure(
    suffix: str, keep: float | None
) -> None:
    samples = maps()
    report = report_of(samples, keep)
    name, figure = FIGURES[suffix]

    def check(key: str, mask: Callable[[Sample, float], np.ndarray]) -> None:
        values = [figure([mask(s, float(t)) for s in samples], samples) for t in THRESHOLDS]
        row = report.row(key + suffix)
        assert getattr(row.summary, name) == pytest.approx(max(values))
        assert row.threshold == pytest.approx(float(THRESHOLDS[int(np.argmax(values))]))
        assert row.oracle

    def refined(s: Sample, t: float) -> np.ndarray:
        assert s.refined is not None
        return cut_mask(s.refined, s.confidence >= np.float32(t), threshold=t, keep=keep)

    check("single", lambda s, t: s.confidence >= np.float32(t))
    check("refined_single", refined)
    # The threshold of the refined row is one of the 19.
    assert getattr(report.row("refined_single" + suffix).summary, name) >= getattr(
        report.row("refined").summary, name
    )


@pytest.mark.parametrize("keep", [None, 0.1, 0.45, 0.9])
def test_one_array_holds_the_masks_of_every_threshold(keep: float | None) -> None:
    rng = np.random.default_rng(0)
    refined, confidence = rng.random((2, 5000)).astype(np.float32).round(2)
    kept = kept_confidence(refined, confidence, keep)
    for threshold in np.arange(1, 100) / 100:
        before = confidence >= np.float32(threshold)
        expected = cut_mask(refined, before, threshold=float(threshold), keep=keep)
        np.testing.assert_array_equal(kept >= np.float32(threshold), expected)


def test_the_verdict_holds_the_naive_figures() -> None:
    samples = maps()
    report = report_of(samples)
    cut = ious([s.confidence >= 0.5 for s in samples], samples)
    every = np.stack([ious([s.confidence >= t for s in samples], samples) for t in THRESHOLDS])
    single = every[every.mean(axis=1).argmax()]
    regions = ious([region_target(s.confidence, s.truth, patch=PATCH) for s in samples], samples)
    refined = ious([np.asarray(s.refined) >= 0.5 for s in samples], samples)

    verdict = report.verdict
    assert verdict is not None
    assert verdict.gain == pytest.approx((refined - cut).mean())
    assert verdict.standard_error == pytest.approx(stats.sem(refined - cut))
    assert verdict.gain_over_single == pytest.approx((refined - single).mean())
    assert verdict.standard_error_over_single == pytest.approx(stats.sem(refined - single))
    assert verdict.gain_of_regions == pytest.approx((regions - cut).mean())
    share = (refined - cut).mean() / (regions - cut).mean()
    assert verdict.share_of_regions == pytest.approx(share)
    told = report.as_dict()["verdict"]
    assert told["share_of_regions"] == verdict.share_of_regions
    assert told["sentence"] == verdict.sentence()
    assert f"gains {100 * (refined - cut).mean():.1f} points of IoU" in told["sentence"]


def verdict(
    gain: float,
    error: float | None,
    over_single: float,
    error_over_single: float | None,
    *,
    regions: float = 0.056,
    lost: int = 3,
    n: int = 27,
) -> Verdict:
    return Verdict(
        n=n,
        unit="map",
        gain=gain,
        standard_error=error,
        gain_over_single=over_single,
        standard_error_over_single=error_over_single,
        gain_of_regions=regions,
        n_worse_by_a_point=lost,
    )


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (
            verdict(0.023, 0.005, 0.019, 0.005),
            "Refining gains 2.3 points of IoU (s.e. 0.5) over the cut at 0.5, 41 % of what "
            "region-specific thresholds would, and 1.9 (s.e. 0.5) over the best single threshold; "
            "3 of 27 maps (11 %) lose more than a point.",
        ),
        (
            verdict(0.004, 0.003, -0.002, 0.003, lost=1),
            "Refining gains 0.4 points of IoU (s.e. 0.3, so it may be chance) over the cut at 0.5, "
            "7 % of what region-specific thresholds would, but loses 0.2 (s.e. 0.3, so it may be "
            "chance) against the best single threshold; 1 of 27 maps (4 %) loses more than a "
            "point.",
        ),
        (
            verdict(-0.011, 0.004, -0.013, 0.004, lost=9),
            "Refining loses 1.1 points of IoU (s.e. 0.4) against the cut at 0.5, where "
            "region-specific thresholds would gain 5.6, and 1.3 (s.e. 0.4) against the best single "
            "threshold; 9 of 27 maps (33 %) lose more than a point.",
        ),
        (
            verdict(0.0, 0.0, 0.0, 0.0, lost=0),
            "Refining neither gains nor loses IoU (s.e. 0.0) over the cut at 0.5, where "
            "region-specific thresholds would gain 5.6, nor over the best single threshold; "
            "no map loses more than a point.",
        ),
        (
            verdict(-0.0004, 0.004, -0.01, 0.004, lost=0),
            "Refining neither gains nor loses IoU (s.e. 0.4) over the cut at 0.5, where "
            "region-specific thresholds would gain 5.6, but loses 1.0 (s.e. 0.4) against the best "
            "single threshold; no map loses more than a point.",
        ),
        (
            verdict(0.01, None, 0.0, None, regions=0.0, lost=0, n=1),
            "Refining gains 1.0 points of IoU over the cut at 0.5 but nothing over the best single "
            "threshold; no map loses more than a point.",
        ),
        (
            verdict(-0.5, None, -0.5, None, regions=-0.1, lost=1, n=1),
            "Refining loses 50.0 points of IoU against the cut at 0.5 and 50.0 against the best "
            "single threshold; 1 of 1 map (100 %) loses more than a point.",
        ),
    ],
)
def test_the_verdict_is_honest_in_words(figures: Verdict, sentence: str) -> None:
    assert figures.sentence() == sentence


def whole(source: SourceReport, model: str | None = "net") -> str:
    return Report(
        sources=(source,), model=model, digest=None, patch=PATCH, threshold=0.5, seconds=1.0
    ).table()


def test_the_table_shows_each_way_to_cut_by_each_measure() -> None:
    source = report_of(maps())
    text = whole(source)
    assert max(map(len, text.splitlines())) <= 80
    lines = {line[:27].strip(): line[27:].split() for line in text.splitlines()[2:9]}
    keys = ("cut", "single", "per_map", "regions", "refined", "refined_single")
    for title, (suffix, field) in {
        "IoU (mean of maps)": ("", "miou"),
        "IoU (all pixels)": ("_pooled", "iou_pooled"),
        "mean of both classes (mIoU)": ("_two_class", "miou_two_class"),
        "Boundary IoU (d = 2 px)": ("_boundary", "boundary_iou"),
    }.items():
        rows = [source.row(key + suffix * key.endswith("single")) for key in keys]
        assert lines[title] == [f"{100 * getattr(row.summary, field):.2f}" for row in rows]
    error = source.row("refined").summary.mae
    assert lines["mean absolute error (MAE)"][1:] == ["-", "-", "-", f"{error:.4f}", "-"]
    assert "region" in text and "16 x 16 pixels" in text


def test_calibration_and_keep_threshold_are_told_in_the_table_and_on_the_page() -> None:
    samples = maps()
    source, kept = report_of(samples), Gallery(threshold=0.5, keep=None)
    for sample in samples:
        kept.add(sample)
    plain = Report(
        sources=(source,), model="net", digest=None, patch=PATCH, threshold=0.5, seconds=1.0
    )
    for text in (plain.table(), evaluate_page(plain, {source.name: kept})):
        assert "by the calibration" not in text and "is kept from" not in text
    report = replace(plain, calibration="strength 0.5, cut at 0.4", keep_threshold=0.3)
    for text in (report.table(), evaluate_page(report, {source.name: kept})):
        told = " ".join(text.split())
        assert "by the calibration: strength 0.5, cut at 0.4." in told
        assert "kept from a refined confidence of 0.3 on" in told


def test_a_line_that_repeats_another_is_left_out() -> None:
    """Of a single map the mean over maps is the pooled figure; at this reach all is boundary."""
    sample = maps(1)[0]
    tally = Tally(patch=PATCH, distance=40)
    tally.add(sample)
    lines = tally.report("net").table().splitlines()
    assert "IoU (all pixels): as IoU (mean of maps)" in lines
    assert "Boundary IoU (d = 40 px): as IoU (mean of maps)" in lines
    assert sum(line.startswith(("IoU", "mean of both")) for line in lines) == 3


def test_thresholds_are_told_apart_where_measures_want_others() -> None:
    source = report_of(maps())
    text = " ".join(source.table().split())
    for key, told in (("single", "Best single threshold: "), ("refined_single", "refined maps ")):
        first, *others = (source.row(key + suffix).threshold for suffix in FIGURES)
        start = text.index(told) + len(told)
        assert text[start:].startswith(f"{first:.2f}")
        clause = text[start:].split(";")[0]
        for name, threshold in zip(
            ("IoU of all pixels", "mIoU", "Boundary IoU"), others, strict=True
        ):
            assert (f"{name} {threshold:.2f}" in clause) == (threshold != first)


def test_without_a_model_the_table_says_what_there_is_to_gain() -> None:
    source = report_of([replace(s, refined=None) for s in maps()])
    text = whole(source, model=None)
    assert source.verdict is None and source.as_dict()["verdict"] is None
    cut, single, regions = (source.row(key).summary.miou for key in ("cut", "single", "regions"))
    assert (
        f"the best single threshold would gain {100 * (single - cut):.1f} points of IoU, "
        f"region-specific thresholds {100 * (regions - cut):.1f}." in " ".join(text.split())
    )
    assert "- refined -" not in text and "s.e." not in text


def test_single_maps_that_lose_are_told() -> None:
    samples = maps(3)
    worse = np.where(samples[1].truth, samples[1].confidence * np.float32(0.5), 0)
    samples[1] = replace(samples[1], refined=worse.astype(np.float32))
    text = " ".join(report_of(samples).table().split())
    before = Counts.of(prediction=samples[1].confidence >= 0.5, target=samples[1].truth).iou()
    assert f"In IoU 2 maps gained, 1 lost, most of all map1: {100 * before:.1f} points." in text


def test_the_unit_and_the_way_of_reading_are_in_the_title() -> None:
    tally = Tally(patch=PATCH, metric="cityblock")
    for sample in maps(2):
        tally.add(sample)
    text = replace(tally.report("scene", "cell"), resampling=0.39).table()
    assert (
        text.splitlines()[0]
        == "scene: 2 cells, boundary by cityblock distance, read at 0.39 of size"
    )
    assert "IoU (mean of cells)" in text and "per cell*" in text
