"""Versions, reloads, canaries and memory, as a host's users see them."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any

import pytest

from edgewise.errors import InvalidInput
from edgewise.host.hosting import LocalHost
from edgewise.host.requests import Answer, NoModel, Refused
from edgewise.host.settings import ModelSettings, Versions
from edgewise.types import Signature, TensorSpec

from .conftest import FakeModel, Story, asked, put


def value(answer: Answer) -> float:
    """The model's `plus`."""
    return float(answer.outputs["y"][0, 0]) - 2


def states(host: LocalHost) -> dict[str, str]:
    return {f"{status.name}/{status.version}": status.state for status in host.index()}


def test_the_newest_serves_and_the_others_are_told(hosted: Story) -> None:
    hosted.model("m", version=1, plus=1)
    hosted.model("m", version=2, plus=2)

    async def tell(host: LocalHost) -> Any:
        assert states(host) == {"m/1": "absent", "m/2": "absent"}
        assert value(await host.infer(asked("m"))) == 2 and value(await host.infer(asked("m", version="2"))) == 2
        with pytest.raises(NoModel):
            await host.infer(asked("m", version="1"))
        description = await host.describe("m")
        assert description.batched and description.independent and description.version == "2"
        assert host.ready("m") and states(host) == {"m/1": "absent", "m/2": "ready"}
        with pytest.raises(NoModel):
            host.ready("other")
        assert "not served" in host.index()[0].reason

    hosted(tell)


def test_one_load_serves_all_who_ask_at_once(hosted: Story) -> None:
    model = hosted.model("m")

    async def tell(host: LocalHost) -> None:
        await asyncio.gather(*(host.infer(asked("m")) for _ in range(20)))

    hosted(tell)
    assert model.loads == 1 and model.resident == 0


def test_a_waiter_who_goes_does_not_cancel_the_load(hosted: Story) -> None:
    hosted.model("m")

    async def tell(host: LocalHost) -> None:
        first, second = (asyncio.ensure_future(host.infer(asked("m", plus))) for plus in (1, 2))
        await asyncio.sleep(0)
        first.cancel()
        assert value(await second) == 2
        assert first.cancelled() and host._models.find("m").place.in_use == 0

    hosted(tell)


def test_a_new_version_takes_over_and_the_old_one_answers_what_it_took(hosted: Story) -> None:
    old = hosted.model("m", lambda rows: 0.5, plus=1, rows=None)

    async def tell(host: LocalHost) -> None:
        await host.infer(asked("m"))
        waiting = [asyncio.ensure_future(host.infer(asked("m"))) for _ in range(3)]
        await asyncio.sleep(0.01)
        hosted.model("m", version=2, plus=2)
        await asyncio.sleep(3)
        assert value(await host.infer(asked("m"))) == 2
        assert [value(await each) for each in waiting] == [1, 1, 1]
        await asyncio.sleep(1)
        assert old.resident == 0 and states(host) == {"m/1": "absent", "m/2": "ready"}

    hosted(tell, poll_s=0.5)


@pytest.mark.parametrize("how", ["no model", "does not load", "does not fit"])
def test_a_bad_version_leaves_the_old_one_serving(hosted: Story, how: str) -> None:
    hosted.model("m", plus=1, size=60)

    async def tell(host: LocalHost) -> None:
        await host.infer(asked("m"))
        if how == "no model":
            put(hosted.folder, "m", 2, "rubbish")
        else:
            bad = hosted.model("m", version=2, size=60)
            if how == "does not load":
                bad.error = RuntimeError("segments overlap")
            else:
                host._residency._room_s = 1.0
                host._residency.cap = 100

                async def need(place: Any) -> Any:
                    from edgewise.host.memory import Need

                    await host._loader.facts(host._loader._versions[place])
                    return Need(60, 60, "told")

                host._loader.need = need  # type: ignore[method-assign]
        await asyncio.sleep(3)
        assert value(await host.infer(asked("m"))) == 1
        found = host.index()[1]
        assert found.state == "failed" and found.reason
        if how != "does not fit":
            with pytest.raises(InvalidInput, match="can't be loaded"):
                await host.load("m")
            assert value(await host.infer(asked("m"))) == 1
        hosted.models["good"] = FakeModel(plus=3, size=10)
        put(hosted.folder, "m", 2, "good")
        if how != "does not fit":
            await host.load("m")
            assert value(await host.infer(asked("m"))) == 3

    hosted(tell, poll_s=0.5)


def test_a_file_that_is_replaced_in_place(hosted: Story) -> None:
    hosted.model("m", plus=1)
    hosted.models["better"] = FakeModel(plus=2)

    async def tell(host: LocalHost) -> None:
        assert value(await host.infer(asked("m"))) == 1
        put(hosted.folder, "m", 1, "rubbish")
        await asyncio.sleep(2)
        assert value(await host.infer(asked("m"))) == 1
        assert "the old one serves on" in host.index()[0].reason
        put(hosted.folder, "m", 1, "better")
        await asyncio.sleep(2)
        assert value(await host.infer(asked("m"))) == 2
        assert host.index()[0].reason == "" and host.statistics("m")["m", "1"].success.count == 3

    hosted(tell, poll_s=0.5)


def test_a_touched_file_changes_nothing(hosted: Story) -> None:
    model = hosted.model("m", plus=1)

    async def tell(host: LocalHost) -> None:
        await host.infer(asked("m"))
        put(hosted.folder, "m", 1, "m-1")
        await asyncio.sleep(3)
        await host.infer(asked("m"))

    hosted(tell, poll_s=0.5)
    assert model.loads == 1


def test_where_the_newest_is_bad_from_the_start_the_one_before_serves(hosted: Story) -> None:
    hosted.model("m", plus=1)
    hosted.model("m", version=2).error = RuntimeError("no such operator")
    put(hosted.folder, "m", 3, "rubbish")

    async def tell(host: LocalHost) -> None:
        assert [value(answer) for answer in await asyncio.gather(*(host.infer(asked("m")) for _ in range(3)))] == [1, 1, 1]
        assert [status.state for status in host.index()] == ["ready", "failed", "failed"]
        assert "no such operator" in host.index()[1].reason

    hosted(tell)


def test_who_waited_for_a_bad_version_is_told_where_the_one_before_takes_other_inputs(hosted: Story) -> None:
    other = Signature((TensorSpec("q", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))
    hosted.model("m", signature=other)
    hosted.model("m", version=2).error = RuntimeError("segments overlap")

    async def tell(host: LocalHost) -> list[Any]:
        asking = [asyncio.ensure_future(host.infer(asked("m"))) for _ in range(3)]
        async with asyncio.timeout(60):
            return await asyncio.gather(*asking, return_exceptions=True)

    told = hosted(tell)
    assert all(isinstance(each, InvalidInput) and "q" in str(each) for each in told), told


def test_nothing_is_kept_of_names_that_were_made_up(hosted: Story) -> None:
    hosted.model("m")

    async def tell(host: LocalHost) -> int:
        for number in range(20):
            with pytest.raises(NoModel):
                await host.load(f"made-up-{number}")
        return len(host._renewer._locks)

    assert hosted(tell) == 0


def test_what_is_loaded_while_it_closes_leaves_too(hosted: Story) -> None:
    model = hosted.model("m")

    async def tell(host: LocalHost) -> None:
        asking = asyncio.ensure_future(host.infer(asked("m")))
        while host._models.find("m").place.state != "loading":
            await asyncio.sleep(0)
        asking.cancel()

    hosted(tell)
    assert model.loads == 1 and model.resident == 0


def test_a_model_that_is_bad_is_refused_and_not_ready(hosted: Story) -> None:
    put(hosted.folder, "m", 1, "rubbish")

    async def tell(host: LocalHost) -> None:
        for _ in range(2):
            with pytest.raises(Refused, match="can't be loaded"):
                await host.infer(asked("m"))
        assert not host.ready("m")
        with pytest.raises(Refused):
            await host.describe("m")

    hosted(tell)


def test_models_come_and_go(hosted: Story) -> None:
    async def tell(host: LocalHost) -> None:
        with pytest.raises(NoModel, match="empty"):
            await host.infer(asked("m"))
        model = hosted.model("m", plus=1)
        await asyncio.sleep(2)
        assert value(await host.infer(asked("m"))) == 1
        shutil.rmtree(hosted.folder / "m")
        await asyncio.sleep(2)
        with pytest.raises(NoModel):
            await host.infer(asked("m"))
        assert model.resident == 0 and host.index() == []

    hosted(tell, poll_s=0.5)


def test_a_canary_gets_its_share(hosted: Story) -> None:
    hosted.model("m", version=1, plus=1)
    hosted.model("m", version=2, plus=2)

    async def tell(host: LocalHost) -> list[float]:
        return [value(await host.infer(asked("m"))) for _ in range(40)] + [value(await host.infer(asked("m", version="1")))]

    *drawn, named = hosted(tell, default=ModelSettings(versions=Versions(canary="2", canary_share=0.25, latest=2)))
    assert drawn.count(2) == 10 and drawn.count(1) == 30 and named == 1


def test_all_versions_may_be_asked_for(hosted: Story) -> None:
    for version in (1, 2, 3):
        hosted.model("m", version=version, plus=version)

    async def tell(host: LocalHost) -> list[float]:
        return [value(await host.infer(asked("m", version=version))) for version in ("", "1", "2", "3")]

    assert hosted(tell, default=ModelSettings(versions=Versions(latest=0))) == [3, 1, 2, 3]


def test_taken_out_by_hand_it_stays_out_until_it_is_asked_for(hosted: Story) -> None:
    model = hosted.model("m", lambda rows: 0.5)

    async def tell(host: LocalHost) -> None:
        running = asyncio.ensure_future(host.infer(asked("m")))
        await asyncio.sleep(0.1)
        await host.unload("m")
        assert value(await running) == 0
        assert model.resident == 0 and not host.ready("m")
        with pytest.raises(Refused, match="by hand"):
            await host.infer(asked("m"))
        await host.load("m")
        assert model.resident and host.ready("m")
        await host.infer(asked("m"))
        for act in (host.load, host.unload):
            with pytest.raises(NoModel):
                await act("other")

    hosted(tell)


def test_pinned_models_are_there_at_the_start(hosted: Story) -> None:
    model = hosted.model("m")

    async def tell(host: LocalHost) -> int:
        return model.loads

    assert hosted(tell, models={"m": ModelSettings(pinned=True)}) == 1


def test_many_models_in_little_memory_answer_everybody(hosted: Story) -> None:
    megabyte = 2**20
    names = [f"m{i}" for i in range(20)]
    for i, name in enumerate(names):
        hosted.model(name, lambda rows: 0.002, plus=i, size=10 * megabyte)

    async def tell(host: LocalHost) -> Any:
        async def client(number: int) -> None:
            for i in range(40):
                which = (number * 7 + i * i) % 20 if i % 3 else number % 3
                assert value(await host.infer(asked(names[which]))) == which
                assert hosted.engine.resident() <= 50 * megabyte

        await asyncio.gather(*(client(number) for number in range(8)))
        return host.vitals()

    vitals = hosted(tell, memory_bytes=50 * megabyte, default=ModelSettings(memory_bytes=10 * megabyte))
    assert vitals.tally.highest <= 50 * megabyte and vitals.tally.evictions > 5
    assert vitals.tally.hits and sum(vitals.kept.values()) <= 50 * megabyte


def test_a_model_that_can_not_fit_is_refused_before_it_loads(hosted: Story) -> None:
    model = hosted.model("m")

    async def tell(host: LocalHost) -> None:
        with pytest.raises(Refused, match=r"needs 20\.0 MB .*the cap is 10\.0 MB"):
            await host.infer(asked("m"))
        with pytest.raises(Refused, match="cap"):
            await host.load("m")

    hosted(tell, memory_bytes=10 * 2**20, default=ModelSettings(memory_bytes=20 * 2**20))
    assert not model.loads
