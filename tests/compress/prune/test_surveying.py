"""What parts are worth, alone and beside others that are narrow, against networks that are made and asked."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.compress.prune import surveying
from edgewise.compress.prune.around import losses_around, neighbours
from edgewise.compress.prune.calibration import Data, enough
from edgewise.compress.prune.losses import answers, divergence, rising
from edgewise.compress.prune.narrowing import narrowed, without
from edgewise.compress.prune.pruning import prune
from edgewise.compress.prune.surveying import Survey, survey
from edgewise.graph import parts
from edgewise.measure.sizes import operations_predictor
from edgewise.models.network import Network
from edgewise.testing.encoder_graphs import encoder, texts


def batches(n: int = 3) -> list[dict[str, np.ndarray]]:
    return [texts(40, 12, seed=i) for i in range(n)]


@pytest.fixture(scope="module")
def found() -> Survey:
    network = Network(encoder(width=16, heads=4, inner=32))
    return survey(network, batches(), samples=80)


def test_losses_are_what_the_narrow_networks_answer(found: Survey) -> None:
    dense = answers(found.network, found.judged)
    kinds = set()
    for part in found.chosen:
        kinds.add(part.kind)
        for width in sorted(found.losses[part.name])[1:-1]:
            keep = found.ranking[part.name].keep(width)
            if part.kind == "hidden":
                other = narrowed(found.network, found.coupling, {part.name: keep}, found.data)
            else:
                other = without(found.network, part, keep, found.data, repair=True)
            lost = divergence(dense, answers(other, found.judged))
            assert found.losses[part.name][width] >= lost * (1 - 1e-3) - 1e-6
    assert kinds == {"hidden", "heads", "neurons"}
    assert all(0 in found.losses[part.name] for part in found.chosen if part.removable)


def test_beside_the_others_a_part_is_worth_what_the_whole_then_answers(found: Survey) -> None:
    """Without a narrow stream: at the widths themselves, and with one part at another width."""
    widths = {part.name: part.units if part.kind == "hidden" else part.units // 2 for part in found.chosen}
    ladders = {part.name: tuple(found.losses[part.name]) for part in found.chosen}
    around = losses_around(
        found.network, found.coupling, found.chosen, found.ranking, ladders, widths, found.data, found.judged,
        repair=True, progress=lambda what, share: None,
    )  # fmt: skip
    dense = answers(found.network, found.judged)

    def asked(changed: dict[str, int]) -> float:
        network = found.network
        from edgewise.compress.prune.moments import gather

        inner = [part for part in found.chosen if part.kind != "hidden"]
        moments = gather(network, inner, found.data)
        for part in inner:
            width = {**widths, **changed}[part.name]
            if width < part.units:
                network = without(network, part, found.ranking[part.name].keep(width), found.data, repair=True, moments=moments)
        return divergence(dense, answers(network, found.judged))

    at = asked({})
    assert sum(around[name][width] for name, width in widths.items()) == pytest.approx(at, rel=0.02)
    for part in found.chosen:
        if part.kind == "hidden":
            continue
        narrower = max(width for width in around[part.name] if width < widths[part.name])
        more = around[part.name][narrower] - around[part.name][widths[part.name]]
        assert more == pytest.approx(max(0.0, asked({part.name: narrower}) - at), rel=0.05, abs=0.02 * at)


def test_a_narrow_stream_is_looked_at_with_all_that_is_in_it(found: Survey) -> None:
    widths = {part.name: max(1, part.units * 3 // 4) for part in found.chosen}
    ladders = {part.name: tuple(found.losses[part.name]) for part in found.chosen}
    around = losses_around(
        found.network, found.coupling, found.chosen, found.ranking, ladders, widths, found.data, found.judged,
        repair=True, progress=lambda what, share: None,
    )  # fmt: skip
    for part in found.chosen:
        assert set(around[part.name]) == set(neighbours(ladders[part.name], widths[part.name]))
        ordered = [around[part.name][width] for width in sorted(around[part.name], reverse=True)]
        assert ordered == sorted(ordered)


def test_a_refined_solution_reaches_the_goal_and_is_nowhere_worse(found: Survey) -> None:
    predict = operations_predictor(found.network.to_graph(), found.coupling, batch=1, tokens=12)
    goal = predict({}) / 3
    first = found.solve(predict, goal)
    refined = found.refined(predict, goal, rounds=2)
    assert refined.reachable and predict(refined.widths) <= goal
    assert refined.loss == pytest.approx(found.measured(refined.widths)) and refined.loss <= found.measured(first.widths) + 1e-9
    assert found.refined(predict, goal, rounds=0) == first
    assert not found.refined(predict, 0.0, rounds=1).reachable


def test_a_stream_settles_where_the_whole_network_is_best(found: Survey) -> None:
    """Held against every width of the ladder, each solved for and measured."""
    predict = operations_predictor(found.network.to_graph(), found.coupling, batch=1, tokens=12)
    goal = predict({}) / 3
    (stream,) = (part for part in found.chosen if part.kind == "hidden")
    lost = {}
    for width in found.losses[stream.name]:
        around = found.solve(predict, goal, {stream.name: width}, {stream.name: width})
        if around.reachable:
            lost[width] = found.measured(around.widths)
    tried: list[int] = []
    settled = found.settled(predict, goal, tell=lambda name, width: tried.append(width))
    ladder = sorted(lost, reverse=True)
    assert tried == ladder[: len(tried)] and len(tried) > 1  # from the widest down
    (width,) = settled.values()
    assert width == min(tried, key=lambda each: lost[each])
    assert tried == ladder or all(lost[each] >= lost[width] for each in tried[-surveying.PATIENCE :])
    # within bounds, and nothing where nothing is in reach
    narrow = next(each for each in reversed(ladder) if np.isfinite(lost[each]))
    assert found.settled(predict, goal, most={stream.name: narrow}) == {stream.name: narrow}
    assert found.settled(predict, 0.0) == {}


def test_one_width_that_saves_no_time_doesnt_end_it(found: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    (stream,) = (part for part in found.chosen if part.kind == "hidden")
    ladder = sorted(found.losses[stream.name], reverse=True)
    told = dict(zip(ladder, (3.0, 4.0, 2.0, 2.5, 2.4, 1.0, 0.5), strict=False))
    monkeypatch.setattr(Survey, "measured", lambda self, widths: told.get(widths[stream.name], 9.0))
    tried: list[int] = []
    settled = found.settled(lambda widths: 1.0, 2.0, tell=lambda name, width: tried.append(width))
    assert settled == {stream.name: ladder[2]} and tried == ladder[:5]


def test_prune_with_rounds() -> None:
    network = Network(encoder(width=16, heads=4, inner=32))
    done = prune(network, calibration=batches(), operations=3.0, samples=80, rounds=1)
    assert done.touched and "x predicted, 3x asked" in done.notes[0]
    before, after = ({part.name: part.units for part in parts(each.to_graph()).parts} for each in (network, done.model))
    assert sum(after.values()) < sum(before.values())


def test_neighbours() -> None:
    ladder = (16, 12, 8, 4, 2, 1, 0)
    assert neighbours(ladder, 4) == [16, 12, 8, 4, 2, 1, 0]
    assert neighbours(ladder, 16) == [16, 12, 8, 4]
    assert neighbours(ladder, 3) == [12, 8, 4, 3, 2, 1, 0]
    assert rising({4: 1.0, 2: 0.5, 8: 0.0}) == {8: 0.0, 4: 1.0, 2: 1.0}


def test_sequences_are_looked_at_till_there_are_positions_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.compress.prune import calibration

    some = batches(6)
    tokens = [int(batch["attention_mask"].sum()) for batch in some]
    monkeypatch.setattr(calibration, "POSITIONS", sum(tokens[:3]))
    assert len(enough(some, 40)) == 3 and len(enough(some, 200)) == 5
    pictures = [{"image": np.zeros((4, 3, 8, 8), np.float32)}] * 5
    assert len(enough(pictures, 8)) == 2
    assert Data(enough(some, 10)).batches[0]["input_ids"].shape[0] == 10


def test_a_stream_is_looked_at_in_fewer_widths() -> None:
    (stream,) = (part for part in parts(encoder(width=256, layers=1)).parts if part.kind == "hidden")
    assert surveying.MOST_STREAM_WIDTHS // 2 < len(surveying.ladder(stream)) <= surveying.MOST_STREAM_WIDTHS + 1
