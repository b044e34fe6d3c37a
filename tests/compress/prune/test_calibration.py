"""Which samples stand for all."""

from __future__ import annotations

import numpy as np

from edgewise.compress.prune.calibration import enough, first, spread


def sentences(lengths: list[int], rows: int = 4) -> list[dict[str, np.ndarray]]:
    """Batches of one length each, with a mask, as tasks on texts give them: the shortest first."""
    return [{"ids": np.zeros((rows, n), np.int64), "mask": np.ones((rows, n), np.int64)} for n in lengths]


def test_texts_of_all_lengths_are_looked_at() -> None:
    batches = sentences(list(range(2, 42)))
    for most in (12, 20, 40, 80):
        lengths = [batch["ids"].shape[1] for batch in first(batches, most)]
        assert len(lengths) == most / 4 and abs(np.mean(lengths) - 21.5) < 8 and min(lengths) < 21 < max(lengths)
    assert sorted(batch["ids"].shape[1] for batch in spread(batches)) == list(range(2, 42))
    assert [batch["ids"].shape[1] for batch in enough(batches, 12)][:3] == [batch["ids"].shape[1] for batch in first(batches, 12)]
    assert len(enough(batches, 12)) == 40  # there are fewer positions than it wants


def test_pictures_stay_in_their_order() -> None:
    batches = [{"image": np.full((4, 1, 8, 8), n, np.float32)} for n in range(10)]
    assert [int(batch["image"][0, 0, 0, 0]) for batch in first(batches, 10)] == [0, 1, 2]
    assert [len(batch["image"]) for batch in first(batches, 10)] == [4, 4, 2]
