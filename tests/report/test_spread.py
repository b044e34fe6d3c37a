from __future__ import annotations

from dataclasses import replace

from edgewise.records import ClassQuality, Interval, Quality, Study
from edgewise.report import spread


def classes(*recalls: tuple[str, float, float]) -> Quality:
    made = tuple(ClassQuality(label, 100, Interval(r, r - w, r + w, 100), Interval(r, r - w, r + w, 100), r) for label, r, w in recalls)
    return Quality("accuracy", "test", Interval(0.9, 0.8, 1.0, 300), (), made)


def test_largest_loss_first_and_only_shared_classes() -> None:
    before = classes(("a", 0.9, 0.02), ("b", 0.9, 0.02), ("gone", 0.9, 0.02))
    after = classes(("b", 0.7, 0.02), ("a", 0.91, 0.02), ("new", 0.9, 0.02))
    found = spread.class_changes(before, after)
    assert [(c.before.label, c.apart) for c in found] == [("b", True), ("a", False)]


def test_the_chart_keeps_the_most_changed() -> None:
    before = classes(*((f"c{i}", 0.5, 0.02) for i in range(30)))
    after = classes(*((f"c{i}", 0.5 + (i - 15) / 100, 0.02) for i in range(30)))
    kept = spread.most_changed(spread.class_changes(before, after))
    assert len(kept) == spread.MOST_ROWS
    assert min(abs(c.change) for c in kept) >= 0.09 - 1e-9
    assert [c.change for c in kept] == sorted(c.change for c in kept)


def test_nothing_to_draw() -> None:
    assert spread.latencies([], 500) is None


def test_no_classes_no_chart(met: Study) -> None:
    bare = replace(met.verdict, quality=replace(met.verdict.quality, per_class=()))
    assert spread.classes(bare, 500) is None
