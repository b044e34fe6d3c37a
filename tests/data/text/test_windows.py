"""One answer of several windows, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.data.text import windows
from edgewise.data.text.rows import Rows

LENGTHS = (3, 5, 2, 5, 1)
SAMPLE = np.array([0, 1, 1, 1, 2])
OUTPUTS = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)


@pytest.fixture
def rows() -> Rows:
    count = sum(LENGTHS)
    spans = np.arange(2 * count, dtype=np.int32).reshape(-1, 2)
    return Rows(np.zeros(count, np.int32), np.zeros(count, np.int8), spans, np.concatenate([[0], np.cumsum(LENGTHS)]), SAMPLE)


def test_means(rows: Rows) -> None:
    parts = [OUTPUTS[:2], OUTPUTS[2:]]
    plain, weighted = windows.mean(rows, parts, 3), windows.weighted(rows, parts, 3)
    for sample in range(3):
        mine = np.flatnonzero(sample == SAMPLE)
        weights = np.array(LENGTHS)[mine] / np.array(LENGTHS)[mine].sum()
        np.testing.assert_allclose(plain[sample], OUTPUTS[mine].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(weighted[sample], weights @ OUTPUTS[mine], rtol=1e-6)
    assert plain.dtype == np.float32 and windows.mean(rows, [OUTPUTS[:, 0]], 3).shape == (3,)


def test_rows_that_are_samples_stay_to_the_bit(rows: Rows) -> None:
    np.testing.assert_array_equal(windows.mean(rows, [OUTPUTS], 5), OUTPUTS)
    np.testing.assert_array_equal(windows.weighted(rows, [OUTPUTS], 5), OUTPUTS)


def test_side_by_side(rows: Rows) -> None:
    random = np.random.default_rng(1)
    batches = [random.standard_normal((2, 6, 2)), random.standard_normal((3, 9, 2))]  # each filled up to another length
    flat = [*batches[0], *batches[1]]
    found = windows.side_by_side(rows, batches, 3)
    assert found.shape == (3, 12, 2)
    for sample in range(3):
        wanted = np.concatenate([flat[row][: LENGTHS[row]] for row in np.flatnonzero(sample == SAMPLE)])
        np.testing.assert_array_equal(found[sample, : len(wanted)], wanted)
        assert not found[sample, len(wanted) :].any()
    spans, sizes = rows.of(1)
    assert sizes == (5, 2, 5) and spans.tolist() == rows.spans[3:15].tolist()
