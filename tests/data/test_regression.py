"""Correlations and errors against scipy and the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgewise.data import metrics, regression
from edgewise.data.regression import pearson, spearman
from edgewise.data.scores import influence
from edgewise.errors import InvalidData, InvalidModel

RANDOM = np.random.default_rng(0)
KNOWN = RANDOM.integers(0, 26, 200) / 5  # STS-B's scores, many of them equal
GIVEN = KNOWN + RANDOM.normal(0, 0.7, 200)


@pytest.mark.parametrize(("ours", "theirs"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)])
@pytest.mark.parametrize("rounded", [False, True])
def test_correlations_and_their_scores(ours, theirs, rounded: bool) -> None:  # type: ignore[no-untyped-def]
    x = np.round(GIVEN) if rounded else GIVEN
    value, scores = ours(x, KNOWN)
    assert value == pytest.approx(theirs(x, KNOWN)[0]) and scores.mean() == pytest.approx(value)
    left_out = np.array([theirs(np.delete(x, i), np.delete(KNOWN, i))[0] for i in range(200)])
    one_by_one = influence(value, left_out)
    assert np.corrcoef(scores, one_by_one)[0, 1] > 0.9998
    assert scores.std() == pytest.approx(one_by_one.std(), rel=0.02)


def test_quality() -> None:
    found = {name: metrics.quality(name, "validation", GIVEN[:, None].astype(np.float32), KNOWN, ()) for name in regression.METRICS}
    errors = GIVEN.astype(np.float32) - KNOWN
    assert found["r2"].value.value == pytest.approx(1 - (errors**2).mean() / KNOWN.var())
    assert found["mae-skill"].value.value == pytest.approx(1 - np.abs(errors).mean() / np.abs(KNOWN - np.median(KNOWN)).mean())
    assert found["spearman"].also["mse"].value == pytest.approx((errors**2).mean())
    assert found["spearman"].also["mae"].value == pytest.approx(np.abs(errors).mean())
    assert set(found["pearson"].also) == {"spearman", "r2", "mae-skill", "mse", "mae"}
    for name, quality in found.items():
        assert np.mean(quality.scores) == pytest.approx(quality.value.value), name
        assert quality.value.low < quality.value.value < quality.value.high <= 1
    wanted = stats.pearsonr(GIVEN.astype(np.float32), KNOWN).confidence_interval()
    assert (found["pearson"].value.low, found["pearson"].value.high) == pytest.approx((wanted.low, wanted.high), abs=0.02)


def test_a_worse_model_is_worse_on_the_same_samples() -> None:
    worse = GIVEN + RANDOM.normal(0, 1, 200)
    for name in regression.METRICS:
        one, other = (metrics.quality(name, "test", given, KNOWN, ()) for given in (GIVEN, worse))
        drop = metrics.paired(one, other)
        assert drop.difference.high < 0 and drop.p_value < 0.001
        assert drop.difference.value == pytest.approx(other.value.value - one.value.value)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(InvalidModel, match=r"shape \(200, 2\)"):
        regression.quality("pearson", "test", np.zeros((200, 2)), KNOWN)
    with pytest.raises(InvalidModel, match="NaN"):
        regression.quality("pearson", "test", np.full(200, np.nan), KNOWN)
    with pytest.raises(InvalidData, match="no targets"):
        regression.quality("pearson", "test", GIVEN, None)
    with pytest.raises(InvalidData, match="not all the same"):
        regression.quality("pearson", "test", GIVEN, np.ones(200))
    constant = regression.quality("spearman", "test", np.ones(200), KNOWN)
    assert constant.value.value == 0.0 and constant.value.low < 0 < constant.value.high
