"""Order, deadlines, batches and cancellation, on a clock that moves only when all wait."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host.hosting import LocalHost
from edgewise.host.requests import Answer, Late, NoModel, Refused, Request
from edgewise.host.settings import ModelSettings
from edgewise.types import Execution, Inputs, Outputs, Signature, TensorSpec

from .conftest import SIGNATURE, FakeTimeLoop, Story, asked


async def outcomes(*asking: Any) -> list[Any]:
    return await asyncio.gather(*asking, return_exceptions=True)


def test_an_answer_is_what_the_model_gives_and_only_what_was_wanted(hosted: Story) -> None:
    hosted.model("m")

    async def tell(host: LocalHost) -> Answer:
        return await host.infer(asked("m", 3, outputs=("y",)))

    answer = hosted(tell)
    assert list(answer.outputs) == ["y"] and (answer.outputs["y"] == 6).all()
    assert (answer.model, answer.version, answer.rows) == ("m", "1", 1)
    assert answer.computed_s < 1


def test_requests_that_wait_share_a_call_and_each_gets_its_own_rows(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.01 + 0.001 * rows)

    async def tell(host: LocalHost) -> list[Answer]:
        return await outcomes(*(host.infer(asked("m", i, rows=1 + i % 3)) for i in range(12)))

    for i, answer in enumerate(hosted(tell)):
        assert answer.outputs["y"].shape == (1 + i % 3, 4)
        assert (answer.outputs["y"] == 2 * i).all()
    assert sum(model.calls) == 24
    assert len(model.calls) <= 4


def test_nothing_is_shared_where_nobody_proved_that_it_may(hosted: Story) -> None:
    unknown = hosted.model("unknown", rows=None)
    dependent = hosted.model("dependent", rows="dependent")
    fixed = hosted.model("fixed", signature=Signature(SIGNATURE.inputs, (TensorSpec("y", (4,), "float32"),)))

    async def tell(host: LocalHost) -> list[Any]:
        return await outcomes(*(host.infer(asked(name, i)) for i in range(5) for name in ("unknown", "dependent", "fixed")))

    answers = hosted(tell)
    assert all(isinstance(answer, Answer) and answer.rows == 1 for answer in answers)
    assert set(unknown.calls) == set(dependent.calls) == set(fixed.calls) == {1}


def test_a_curve_that_does_not_pay_shares_nothing(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.01 * rows)

    async def tell(host: LocalHost) -> None:
        await outcomes(*(host.infer(asked("m", i)) for i in range(6)))

    hosted(tell)
    assert set(model.calls) == {1}


def test_an_output_without_the_batch_axis_loses_nobody_his_answer(hosted: Story) -> None:
    """MLServer #1306: of 48 requests at once, 42 got an empty tensor and HTTP 200."""
    model = hosted.model("m", lambda rows: 0.01)
    model.answer = lambda inputs: {"y": inputs["x"].sum(0, keepdims=True)}

    async def tell(host: LocalHost) -> tuple[list[Any], list[Any], Any]:
        first = await outcomes(*(host.infer(asked("m", i)) for i in range(48)))
        again = await outcomes(*(host.infer(asked("m", i)) for i in range(4)))
        return first, again, host.index()

    first, again, index = hosted(tell)
    for i, answer in [*enumerate(first), *enumerate(again)]:
        assert (answer.outputs["y"] == i).all() and answer.outputs["y"].shape == (1, 4)
    assert all(answer.rows == 1 for answer in again)
    assert "no longer share" in index[0].reason


def test_one_request_that_the_model_chokes_on_spoils_no_other(hosted: Story) -> None:
    hosted.model("m", lambda rows: 0.01)

    async def tell(host: LocalHost) -> list[Any]:
        return await outcomes(*(host.infer(asked("m", np.nan if i == 3 else i)) for i in range(8)))

    answers = hosted(tell)
    assert isinstance(answers[3], EdgewiseError) and "not a number" in str(answers[3])
    assert all((answer.outputs["y"] == 2 * i).all() for i, answer in enumerate(answers) if i != 3)


def test_what_does_not_fit_never_reaches_the_queue(hosted: Story) -> None:
    model = hosted.model("m")

    async def tell(host: LocalHost) -> list[Any]:
        wrong = asked("m")
        wrong.inputs["x"] = np.zeros((1, 5), np.float32)  # type: ignore[index]
        return await outcomes(
            host.infer(wrong), host.infer(asked("m", outputs=("w",))), host.infer(asked("n")), host.infer(asked("m", version="2"))
        )

    shape, output, name, version = hosted(tell)
    assert isinstance(shape, InvalidInput) and isinstance(output, InvalidInput) and "'w'" in str(output)
    assert isinstance(name, NoModel) and isinstance(version, NoModel)
    assert not model.calls


def test_late_is_told_at_the_deadline_and_not_when_a_worker_gets_to_it(hosted: Story) -> None:
    """Triton #7512 answers a queue's deadline of 50 ms after 600 to 800."""
    model = hosted.model("m", lambda rows: 0.02, rows=None)

    async def tell(host: LocalHost) -> float:
        await host.infer(asked("m"))
        model.seconds = lambda rows: 0.7  # much slower than it was measured
        first = asyncio.ensure_future(host.infer(asked("m")))
        await asyncio.sleep(0.001)
        began = hosted.loop.time()
        with pytest.raises(Late):
            await host.infer(asked("m", deadline=began + 0.05))
        took = hosted.loop.time() - began
        await first
        return took

    assert hosted(tell) == pytest.approx(0.05, abs=1e-3)
    assert len(model.calls) == 2


def test_a_request_that_runs_past_its_deadline_is_late_at_it(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.02, rows=None)

    async def tell(host: LocalHost) -> tuple[float, int]:
        await host.infer(asked("m"))
        model.seconds = lambda rows: 0.5  # much slower than it was measured
        began = hosted.loop.time()
        with pytest.raises(Late):
            await host.infer(asked("m", deadline=began + 0.05))
        return hosted.loop.time() - began, host.statistics("m")["m", "1"].late.count

    took, late = hosted(tell)
    assert took == pytest.approx(0.05, abs=1e-3) and late == 1


def test_what_can_not_make_it_is_refused_at_once(hosted: Story) -> None:
    hosted.model("m", lambda rows: 0.1, rows=None)

    async def tell(host: LocalHost) -> tuple[Any, float]:
        await host.infer(asked("m"))
        first = asyncio.ensure_future(host.infer(asked("m")))
        await asyncio.sleep(0.01)
        began = hosted.loop.time()
        with pytest.raises(Refused) as refused:
            await host.infer(asked("m", deadline=began + 0.12))
        assert hosted.loop.time() == began
        await first
        return refused.value, host.statistics("m")["m", "1"].refused.count

    error, count = hosted(tell)
    assert count == 1 and error.retry_after_s > 0


def test_a_full_queue_refuses(hosted: Story) -> None:
    hosted.model("m", rows=None)

    async def tell(host: LocalHost) -> list[Any]:
        return await outcomes(*(host.infer(asked("m", i)) for i in range(8)))

    answers = hosted(tell, default=ModelSettings(queue=3))
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(refused) >= 4 and all(answer.retry_after_s > 0 for answer in refused)
    assert sum(isinstance(answer, Answer) for answer in answers) == len(answers) - len(refused)


def test_the_urgent_and_the_important_go_first(hosted: Story) -> None:
    hosted.model("m", lambda rows: 0.01, rows=None)
    order: list[str] = []

    async def tell(host: LocalHost) -> None:
        await host.infer(asked("m"))
        now = hosted.loop.time()

        async def ask(name: str, **given: Any) -> None:
            await host.infer(asked("m", **given))
            order.append(name)

        await asyncio.gather(
            ask("there already"),
            ask("some time"),
            ask("late", deadline=now + 1),
            ask("soon", deadline=now + 0.2),
            ask("important", priority=1),
        )

    hosted(tell)
    assert order == ["there already", "important", "soon", "late", "some time"]


def test_cancelled_requests_cost_nothing_more(hosted: Story) -> None:
    model = hosted.model("m", rows=None)

    async def tell(host: LocalHost) -> int:
        await host.infer(asked("m"))
        tasks = [asyncio.ensure_future(host.infer(asked("m", i))) for i in range(6)]
        await asyncio.sleep(0.001)
        for task in tasks[1:]:
            task.cancel()
        await outcomes(*tasks)
        assert not host._executor.waiting
        return host._models.find("m").place.in_use

    assert hosted(tell) == 0
    assert len(model.calls) == 2


def test_closing_answers_what_was_taken_and_takes_no_more(hosted: Story) -> None:
    hosted.model("m", rows=None)

    async def tell(host: LocalHost) -> list[Any]:
        tasks = [asyncio.ensure_future(host.infer(asked("m", i))) for i in range(5)]
        await asyncio.sleep(0.005)
        closing = asyncio.ensure_future(host.close())
        await asyncio.sleep(0)
        with pytest.raises(Refused):
            await host.infer(asked("m"))
        await closing
        return await outcomes(*tasks)

    assert all(isinstance(answer, Answer) for answer in hosted(tell))
    assert hosted.engine.resident() == 0


def test_closing_does_not_wait_for_ever(hosted: Story) -> None:
    hosted.model("m", lambda rows: 5.0, rows=None)

    async def tell(host: LocalHost) -> list[Any]:
        tasks = [asyncio.ensure_future(host.infer(asked("m", i))) for i in range(4)]
        await asyncio.sleep(0.5)
        await host.close()
        return await outcomes(*tasks)

    answers = hosted(tell, grace_s=7.0)
    assert [type(answer).__name__ for answer in answers] == ["Answer", "Answer", "Refused", "Refused"]


@pytest.mark.parametrize("cores, threads, most", [(1, 1, 1), (2, 1, 2), (2, 2, 1), (1, 2, 1)])
def test_no_more_calls_at_once_than_cores_bear(hosted: Story, cores: int, threads: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        hosted.model(name, rows=None)
    look, execution = hosted.engine.look, Execution("fake", threads=threads)
    monkeypatch.setattr(hosted.engine, "look", lambda version: replace(look(version), execution=execution))

    async def tell(host: LocalHost) -> None:
        for name in "abc":
            await host.infer(asked(name))
        await outcomes(*(host.infer(asked(name, i)) for i in range(4) for name in "abc"))

    hosted(tell, cores=cores)
    assert hosted.workers.most == most


def test_short_calls_run_where_they_are_asked(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.0001, rows=None)

    async def tell(host: LocalHost) -> Answer:
        await host.infer(asked("m"))
        hosted.workers.start = None  # type: ignore[assignment, method-assign]
        return await host.infer(asked("m", 4))

    answer = hosted(tell, inline_ms=0.3)
    assert (answer.outputs["y"] == 8).all() and len(model.calls) == 2


def test_calls_that_turn_out_shorter_than_foretold_run_where_they_are_asked(hosted: Story) -> None:
    takes = {"s": 0.010}
    hosted.model("m", lambda rows: takes["s"], rows=None)

    async def tell(host: LocalHost) -> Answer:
        await host.infer(asked("m"))
        takes["s"] = 0.0001
        for i in range(500):
            await host.infer(asked("m", i))
        hosted.workers.start = None  # type: ignore[assignment, method-assign]
        return await host.infer(asked("m", 4))

    assert (hosted(tell, inline_ms=2.0).outputs["y"] == 8).all()


def test_no_more_short_calls_run_in_one_turn_than_it_may_take(hosted: Story, loop: FakeTimeLoop) -> None:
    """Until the turn is over, nobody hears who else asks: their deadlines would count from when they were read, not from when they came."""
    model = hosted.model("m", lambda rows: 0.001, rows=None)

    def answer(inputs: Inputs) -> Outputs:
        loop.now += 0.001
        return {"y": inputs["x"] * 2, "z": inputs["x"]}

    async def tell(host: LocalHost) -> tuple[list[Any], int, int]:
        await host.infer(asked("m"))
        model.answer = answer
        for i in range(3):
            await host.infer(asked("m", i))
            await asyncio.sleep(0)
        one_by_one = hosted.workers.most
        return await outcomes(*(host.infer(asked("m", i)) for i in range(4))), one_by_one, hosted.workers.most

    answers, one_by_one, together = hosted(tell, inline_ms=2)
    assert all((answer.outputs["y"] == 2 * i).all() for i, answer in enumerate(answers))
    assert (one_by_one, together) == (0, 1)


def test_short_calls_that_gain_by_sharing_wait_for_the_end_of_the_turn(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.0001)

    async def tell(host: LocalHost) -> list[Any]:
        await host.infer(asked("m"))
        hosted.workers.start = None  # type: ignore[assignment, method-assign]
        return await outcomes(*(host.infer(asked("m", i)) for i in range(8)))

    answers = hosted(tell, inline_ms=0.3)
    assert all((answer.outputs["y"] == 2 * i).all() for i, answer in enumerate(answers))
    assert max(model.calls) == 8


def test_a_client_that_asks_alone_does_not_wait_for_others_to_share(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.01 + 0.001 * rows)

    async def tell(host: LocalHost) -> tuple[int, list[Any]]:
        await host.infer(asked("m"))
        before = hosted.workers.started
        first = asyncio.ensure_future(host.infer(asked("m", 1)))
        await asyncio.sleep(0)
        begun = hosted.workers.started - before
        return begun, [await first, *await outcomes(*(host.infer(asked("m", i)) for i in range(2, 9)))]

    begun, answers = hosted(tell)
    assert begun == 1
    assert all((answer.outputs["y"] == 2 * i).all() for i, answer in enumerate(answers, 1))
    assert max(model.calls) == 6  # those who came while the first of the seven ran


def test_what_holds_the_loop_up_goes_to_threads_until_it_was_short_there_for_a_while(hosted: Story) -> None:
    takes = {"s": 0.0001}
    hosted.model("m", lambda rows: takes["s"], rows=None)

    async def tell(host: LocalHost) -> list[int]:
        async def in_threads(count: int) -> int:
            before = hosted.workers.started
            for i in range(count):
                await host.infer(asked("m", i))
                await asyncio.sleep(0)
            return hosted.workers.started - before

        await host.infer(asked("m"))
        found = [await in_threads(20)]
        takes["s"] = 0.001
        await in_threads(4)
        found.append(await in_threads(300))
        takes["s"] = 0.0001
        await in_threads(400)  # of calls that run alone, the schedule hears of one in eight
        return [*found, await in_threads(20)]

    assert hosted(tell, inline_ms=0.3) == [0, 300, 0]


def test_one_short_call_in_a_thread_is_not_enough(hosted: Story) -> None:
    """Its pace, which short calls had made, would have brought it back with the first call that is told of."""
    takes = {"s": 0.0001}
    hosted.model("m", lambda rows: takes["s"], rows=None)

    async def tell(host: LocalHost) -> int:
        await host.infer(asked("m"))
        takes["s"] = 0.001
        for i in range(4):
            await host.infer(asked("m", i))
            await asyncio.sleep(0)
        takes["s"] = 0.0001
        before = hosted.workers.started
        for i in range(32):
            await host.infer(asked("m", i))
        return hosted.workers.started - before

    assert hosted(tell, inline_ms=0.3) == 32


def test_calls_that_others_share_leave_the_loop_too_where_they_hold_it_up(hosted: Story) -> None:
    takes = {"s": 0.0001}
    hosted.model("m", lambda rows: takes["s"])

    async def tell(host: LocalHost) -> int:
        await host.infer(asked("m"))
        takes["s"] = 0.02
        for i in range(4):
            await host.infer(asked("m", i))
            await asyncio.sleep(0)
        before = hosted.workers.started
        for i in range(10):
            await host.infer(asked("m", i))
            await asyncio.sleep(0)
        return hosted.workers.started - before

    assert hosted(tell, inline_ms=0.3) == 10


def test_one_slow_model_sends_no_other_to_threads(hosted: Story) -> None:
    takes = {"s": 0.0001}
    hosted.model("slow", lambda rows: takes["s"], rows=None)
    hosted.model("fast", lambda rows: 0.0001, rows=None)

    async def tell(host: LocalHost) -> list[int]:
        await outcomes(*(host.infer(asked(name)) for name in ("slow", "fast")))
        takes["s"] = 0.001
        found = []
        for name in ["slow"] * 3 + ["fast"] * 2 + ["slow"] * 4 + ["fast"] * 4:
            before = hosted.workers.started
            await host.infer(asked(name))
            await asyncio.sleep(0)
            found.append(hosted.workers.started - before)
        return found

    assert hosted(tell, inline_ms=0.3) == [0] * 5 + [0, 1, 1, 1] + [0] * 4


@pytest.mark.parametrize("inline_ms", [0, 200])
def test_a_forecast_that_became_wrong_is_found_out_though_every_deadline_is_below_it(hosted: Story, inline_ms: float) -> None:
    takes = {"s": 0.1}
    hosted.model("m", lambda rows: takes["s"], rows=None)

    async def tell(host: LocalHost) -> list[Any]:
        await host.infer(asked("m"))
        takes["s"] = 0.01
        found = []
        for i in range(100):
            found += await outcomes(host.infer(asked("m", i, deadline=hosted.loop.time() + 0.05)))
            await asyncio.sleep(0)
        return found

    assert all(isinstance(answer, Answer) for answer in hosted(tell, inline_ms=inline_ms))


def test_a_forecast_that_holds_is_tried_ever_less(hosted: Story) -> None:
    hosted.model("m", lambda rows: 0.1, rows=None)

    async def tell(host: LocalHost) -> tuple[list[float], list[Any], float]:
        await host.infer(asked("m"))
        began, tried, found = hosted.loop.time(), [], []
        for i in range(1200):
            calls = hosted.workers.started
            found += await outcomes(host.infer(asked("m", i, deadline=hosted.loop.time() + 0.05)))
            if hosted.workers.started > calls:
                tried.append(round(hosted.loop.time() - began))
            await asyncio.sleep(0.1)
        return tried, found, host._executor.state.caution

    tried, found, caution = hosted(tell)
    assert len(tried) == 7 and tried[:4] == [0, 1, 3, 8]
    assert [type(one) for one in found].count(Refused) == 1200 - 7 and [type(one) for one in found].count(Late) == 7
    assert caution == 1.0  # nobody was promised that these would be in time


def test_shapes_that_take_less_than_the_curve_of_others_says_are_not_refused_for_ever(hosted: Story) -> None:
    signature = Signature((TensorSpec("x", ("batch", "n"), "float32"),), SIGNATURE.outputs)
    model = hosted.model("m", lambda rows: 0.01, rows=None, signature=signature)

    async def tell(host: LocalHost) -> tuple[list[Any], float]:
        await host.infer(Request("m", {"x": np.ones((1, 32), np.float32)}))
        found = []
        for _ in range(80):
            wide = Request("m", {"x": np.ones((1, 32 * 16), np.float32)}, deadline=hosted.loop.time() + 0.05)
            found += await outcomes(host.infer(wide))
        return found, host._executor.pace(host._models.find("m"))

    found, pace = hosted(tell)
    assert all(isinstance(answer, Answer) for answer in found) and len(model.calls) == 81
    assert pace == pytest.approx(1.0)  # of the shapes that were measured, which is what the curve on the shelf is corrected by


def test_nothing_is_tried_while_somebody_waits_or_runs(hosted: Story) -> None:
    hosted.model("m", lambda rows: 0.1, rows=None)

    async def tell(host: LocalHost) -> list[Any]:
        await host.infer(asked("m"))
        now = hosted.loop.time()
        promised = [asyncio.ensure_future(host.infer(asked("m", deadline=now + 0.25))) for _ in range(2)]
        await asyncio.sleep(0.001)
        found = await outcomes(host.infer(asked("m", deadline=hosted.loop.time() + 0.05)))
        return [*found, *await outcomes(*promised)]

    assert [type(one) for one in hosted(tell)] == [Refused, Answer, Answer]


def test_who_is_refused_since_its_model_is_away_finds_it_there_later(hosted: Story) -> None:
    hosted.model("m", lambda rows: 0.01, rows=None)

    async def tell(host: LocalHost) -> tuple[list[Any], list[Any]]:
        await host.infer(asked("m"))
        place = host._models.find("m").place
        await host._residency.drop(place)
        place.reload_s = 5.0
        first = await outcomes(host.infer(asked("m", deadline=hosted.loop.time() + 0.1)))
        await host._residency.settled()
        return first, await outcomes(host.infer(asked("m", deadline=hosted.loop.time() + 0.1)))

    first, later = hosted(tell)
    assert isinstance(first[0], Refused) and "has to be loaded first" in str(first[0]) and isinstance(later[0], Answer)


def test_statistics_add_up(hosted: Story) -> None:
    hosted.model("m")

    async def tell(host: LocalHost) -> Any:
        await outcomes(*(host.infer(asked("m", i, rows=2)) for i in range(5)), host.infer(asked("m", np.nan)))
        return host.statistics("m")["m", "1"]

    figures = hosted(tell)
    assert figures.success.count == 5 and figures.fail.count == 1 and figures.rows == 10
    assert figures.queue.count == figures.compute.count == 5
    assert sum(rows * counted.count for rows, counted in figures.batches.items()) == 11
    assert abs(figures.last_s - time.time()) < 60
