"""Answers given again: to the same question alone, for as long as they may be, and asked once however many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from edgewise.host.caching import ENTRY_BYTES, Cache, key_of
from edgewise.host.hosting import LocalHost
from edgewise.host.requests import Answer, Late, Request
from edgewise.host.settings import ModelSettings

from .conftest import FakeTimeLoop, Story, asked, put

CACHED = ModelSettings(cache_ttl_s=10)
Play = Callable[[Awaitable[Any]], Any]


def test_another_question_has_another_key() -> None:
    x = np.arange(6, dtype=np.float32)
    asking = [
        Request("m", {"x": x}), Request("m", {"x": x.reshape(2, 3)}), Request("m", {"x": x.astype(np.float64)}), Request("m", {"y": x}),
        Request("m", {"x": x + 1}), Request("m", {"x": x}, outputs=("a",)), Request("m", {"x": x}, outputs=("a", "b")),
        Request("m", {"x": x, "y": x}), Request("m", {"x": x.view(np.int32)}),
    ]  # fmt: skip
    keys = {key_of("id", each) for each in asking} | {key_of("other", asking[0])}
    assert len(keys) == len(asking) + 1
    assert key_of("id", Request("m", {"b": x, "a": x})) == key_of("id", Request("m", {"a": x, "b": x}))
    assert key_of("id", Request("m", {"x": x[::2]})) == key_of("id", Request("m", {"x": x[::2].copy()}))


def test_elements_count_and_not_where_they_lie() -> None:
    def key(*values: bytes | str) -> bytes:
        array = np.empty(len(values), object)
        array[:] = values
        return key_of("id", Request("m", {"x": array}))

    assert key(b"a word", b"b") == key(b"a " + b"word", "b")
    kept = [b"a word"]
    array = np.array(kept, object)
    before = key_of("id", Request("m", {"x": array}))
    array[0] = b"another"
    assert key_of("id", Request("m", {"x": array})) != before
    assert len({key(b"ab", b""), key(b"a", b"b"), key(b"", b"ab"), key(b"ab"), key(b"1\na")}) == 5


def test_types_that_numpy_has_not_itself_are_kept_too() -> None:
    brain = np.ones(3, ml_dtypes.bfloat16)
    assert key_of("id", Request("m", {"x": brain})) != key_of("id", Request("m", {"x": brain * 2}))
    assert key_of("id", Request("m", {"x": brain})) != key_of("id", Request("m", {"x": brain.view(np.uint16)}))


def test_texts_take_their_part_of_the_limit(play: Play, loop: FakeTimeLoop) -> None:
    cache = Cache(ENTRY_BYTES + 1000, loop.time)
    texts = np.array([b"x" * 5000], object)

    async def ask() -> Answer:
        return Answer("m", "1", {"y": texts})

    play(cache.answer(b"key", "m", 10.0, ask, None))
    assert len(cache) == 0 and cache.size == 0


def test_asked_once_for_all_who_ask_meanwhile_and_after(hosted: Story) -> None:
    model = hosted.model("m", rows=None)

    async def tell(host: LocalHost) -> tuple[list[Answer], Answer, Any]:
        together = await asyncio.gather(*(host.infer(asked("m", 3)) for _ in range(5)))
        return together, await host.infer(asked("m", 3)), host.statistics("m")["m", "1"]

    together, after, figures = hosted(tell, default=CACHED)
    assert len(model.calls) == 1
    assert [answer.cached for answer in together] == [False, True, True, True, True] and after.cached
    assert all((answer.outputs["y"] == 6).all() for answer in (*together, after))
    assert not after.outputs["y"].flags.writeable
    assert (figures.cache_hit.count, figures.cache_miss.count, figures.success.count) == (5, 1, 1)


def test_not_kept_unless_wanted_nor_longer_than_allowed(hosted: Story) -> None:
    plain, kept = hosted.model("plain", rows=None), hosted.model("kept", rows=None)

    async def tell(host: LocalHost) -> None:
        for seconds in (1, 9.5, 1):
            for name in ("plain", "kept"):
                await host.infer(asked(name))
            await asyncio.sleep(seconds)

    hosted(tell, models={"kept": CACHED})
    assert (len(plain.calls), len(kept.calls)) == (3, 2)


def test_a_reload_forgets(hosted: Story) -> None:
    hosted.model("m", rows=None)

    async def tell(host: LocalHost) -> list[float]:
        first = await host.infer(asked("m", 1))
        hosted.models["m-2"] = type(hosted.models["m-1"])(plus=100)
        put(hosted.folder, "m", 1, "m-2")
        await host.load("m")
        return [float(answer.outputs["y"][0, 0]) for answer in (first, await host.infer(asked("m", 1)))]

    assert hosted(tell, default=CACHED) == [2, 102]


def answer(size: int) -> Answer:
    return Answer("m", "1", {"y": np.zeros(size, np.uint8)})


def test_bytes_are_capped_and_the_oldest_leave(loop: FakeTimeLoop, play: Play) -> None:
    async def story() -> None:
        cache = Cache(3 * (100 + ENTRY_BYTES), loop.time)
        asks: list[int] = []

        async def get(name: int, size: int = 100) -> Answer:
            async def ask() -> Answer:
                asks.append(name)
                return answer(size)

            return await cache.answer(bytes([name]), "m", 10, ask, None)

        for name in (1, 2, 3, 1, 4, 1, 2):
            await get(name)
        assert asks == [1, 2, 3, 4, 2]
        assert cache.size <= cache.limit and len(cache) == 3
        await get(9, 10_000)
        assert len(cache) == 3
        cache.drop("m")
        assert (len(cache), cache.size) == (0, 0)

    play(story())


def test_whoever_goes_along_keeps_his_own_deadline(loop: FakeTimeLoop, play: Play) -> None:
    async def story() -> None:
        cache = Cache(1000, loop.time)
        asks = 0

        async def ask() -> Answer:
            nonlocal asks
            asks += 1
            await asyncio.sleep(1)
            if asks == 1:
                raise Late("the first one's deadline")
            return answer(1)

        first = asyncio.ensure_future(cache.answer(b"k", "m", 10, ask, None))
        await asyncio.sleep(0)
        hasty = asyncio.ensure_future(cache.answer(b"k", "m", 10, ask, loop.time() + 0.5))
        patient = asyncio.ensure_future(cache.answer(b"k", "m", 10, ask, None))
        began = loop.time()
        with pytest.raises(Late, match="already"):
            await hasty
        assert loop.time() - began == pytest.approx(0.5)
        with pytest.raises(Late, match="first"):
            await first
        assert (await patient).outputs["y"].shape == (1,)
        assert asks == 2

    play(story())


def test_a_flight_without_passengers_is_cancelled_and_one_with_some_is_not(hosted: Story) -> None:
    model = hosted.model("m", rows=None)

    async def tell(host: LocalHost) -> Any:
        await host.infer(asked("m", 0))
        busy = asyncio.ensure_future(host.infer(asked("m", 1)))
        await asyncio.sleep(0.001)
        alone = asyncio.ensure_future(host.infer(asked("m", 2)))
        first, second = (asyncio.ensure_future(host.infer(asked("m", 3))) for _ in range(2))
        await asyncio.sleep(0.001)
        alone.cancel()
        first.cancel()
        await busy
        return await second

    assert (hosted(tell, default=CACHED).outputs["y"] == 6).all()
    assert len(model.calls) == 3
