"""A teacher's answers that are kept text by text: the same whatever the batch, in memory and on disk, through interruption and damage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.compress.distill.answers import InMemory, Kept, Layout, OnDisk, sample_key
from edgewise.compress.distill.teacher import answered, asking, fingerprint, recalling
from edgewise.errors import InvalidData
from edgewise.graph import Graph
from edgewise.graph.blocks import blocks
from edgewise.models.network import Network
from edgewise.testing import encoder_graphs as encoders

CPU = torch.device("cpu")
TEACHER = Network(encoders.encoder())
BLOCK = blocks(TEACHER.structure)[2]
TAPS = {BLOCK.stream: 1, BLOCK.key.tensor: BLOCK.key.axes[1]}


def tensors(**given):
    return {name: torch.from_numpy(value) for name, value in encoders.texts(**given).items()}


def counted(ask):
    asked = []

    def counting(batch):
        asked.append(tuple(batch["input_ids"].shape))
        return ask(batch)

    return counting, asked


def recall(store, asked_of=TEACHER, **more):
    ask, asked = counted(asking(asked_of, tuple(TAPS), CPU))
    return recalling(ask, store, "attention_mask", along=TAPS, **more), asked


@pytest.fixture
def opened(request):
    """Opens a store, and closes it when the test is over."""

    def open_(*arguments, **more):
        store = OnDisk(*arguments, **more)
        request.addfinalizer(store.close)
        return store

    return open_


@pytest.mark.parametrize("kind", ("memory", "disk"))
def test_texts_come_again_in_other_batches_and_other_padding(tmp_path, opened, kind):
    ask, asked = recall(opened(tmp_path, {}) if kind == "disk" else InMemory())
    batch = tensors(n=8, longest=7)
    first, inner = ask(batch)
    assert asked == [(8, 7)]
    mask = batch["attention_mask"] != 0
    exact, tapped = answered(TEACHER, batch, tuple(TAPS))
    torch.testing.assert_close(first[0], exact[0])
    torch.testing.assert_close(inner[BLOCK.stream][mask], tapped[BLOCK.stream][mask], rtol=2**-8, atol=1e-6)
    keys = inner[BLOCK.key.tensor].permute(BLOCK.key.axes)
    torch.testing.assert_close(keys[mask], tapped[BLOCK.key.tensor].permute(BLOCK.key.axes)[mask], rtol=2**-8, atol=1e-6)
    order = torch.tensor([5, 2, 7, 0])
    again = {name: torch.nn.functional.pad(tensor[order], (0, 4)) for name, tensor in batch.items()}
    second, others = ask(again)
    assert asked == [(8, 7)] and torch.equal(second[0], first[0][order])
    assert others[BLOCK.stream].shape == (4, 11, 8) and others[BLOCK.stream].dtype == torch.float32
    assert torch.equal(others[BLOCK.stream][:, :7][mask[order]], inner[BLOCK.stream][order][mask[order]])
    # one text is new: it alone is asked, without padding
    mixed = {
        name: torch.cat([again[name][:2], torch.nn.functional.pad(tensor[:1], (0, 8))])
        for name, tensor in tensors(n=1, longest=3, seed=9).items()
    }
    ask(mixed)
    assert asked == [(8, 7), (1, 3)]


@pytest.mark.parametrize("kind", ("memory", "disk"))
def test_inner_tensors_keep_their_names_in_whatever_order_they_are_asked(tmp_path, opened, kind):
    """`hidden` asks for its tensors first, `layers` and `relations` say along which axis tokens lie in an order of their own."""
    batch, other = tensors(n=4, longest=6), blocks(TEACHER.structure)[0].stream
    names = (BLOCK.key.tensor, other, BLOCK.stream)
    along = {BLOCK.stream: 1, other: 1, BLOCK.key.tensor: BLOCK.key.axes[1]}
    ask = recalling(asking(TEACHER, names, CPU), opened(tmp_path, {}) if kind == "disk" else InMemory(), "attention_mask", along=along)
    _, exact = answered(TEACHER, batch, names)
    mask = batch["attention_mask"] != 0
    for _ in range(2):  # asked, then recalled
        _, inner = ask(batch)
        for name in (other, BLOCK.stream):
            torch.testing.assert_close(inner[name][mask], exact[name][mask], rtol=2**-8, atol=1e-6)


def test_a_text_that_stands_twice_in_a_batch_takes_the_room_of_one(tmp_path, opened):
    """Drawn by length, long texts come several times in one batch."""
    batch = {name: tensor[[0, 0, 0, 0]] for name, tensor in tensors(n=1, longest=7).items()}
    once = {name: tensor[:1] for name, tensor in batch.items()}
    single, several = (opened(tmp_path / name, {}) for name in ("single", "several"))
    recall(single)[0](once)
    recall(several)[0](batch)
    assert several.path.stat().st_size == single.path.stat().st_size
    kept = Kept(3, (torch.zeros(3, 4),))
    memory = InMemory(most_bytes=100)
    for name in (b"a", b"a", b"b"):
        memory.put(sample_key([name]), kept, (Layout("stream", "float32", (-1, 4)),))
    assert memory.get(sample_key([b"b"])) is not None


def test_what_is_on_disk_outlives_the_process_to_the_bit(tmp_path, opened):
    batch = tensors(n=8, longest=7)
    one = opened(tmp_path, {})
    first, inner = recall(one)[0](batch)
    one.close()
    ask, asked = recall(opened(tmp_path, {}))
    second, others = ask(batch)
    assert asked == [] and torch.equal(first[0], second[0])
    assert all(torch.equal(inner[name], others[name]) for name in TAPS)
    ask(tensors(n=3, longest=5, seed=4))  # more is added behind
    fresh, asked = recall(opened(tmp_path, {}))
    fresh(tensors(n=3, longest=5, seed=4))
    assert asked == []


def test_another_teacher_has_answers_of_its_own(tmp_path, opened):
    batch = tensors(n=4)
    other = Network(encoders.encoder(seed=3))
    stored = [opened(tmp_path, {"teacher": fingerprint(net)}) for net in (TEACHER, other)]
    answers = [recall(store, net)[0](batch)[0][0] for store, net in zip(stored, (TEACHER, other), strict=True)]
    assert not torch.allclose(*answers) and len({store.path for store in stored}) == 2
    assert fingerprint(Network(encoders.encoder())) == fingerprint(TEACHER) != fingerprint(other)
    lone = torch.nn.Linear(3, 2)
    told = fingerprint(lone)
    with torch.no_grad():
        lone.bias[0] += 1
    assert fingerprint(lone) != told and fingerprint(lambda inputs: inputs) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_or_torn_file_is_asked_again_never_believed(tmp_path_factory, place, change):
    folder = tmp_path_factory.mktemp("answers")
    batch = tensors(n=5, longest=6)
    store = OnDisk(folder, {})
    exact = recall(store)[0](batch)
    store.close()
    data = bytearray(store.path.read_bytes())
    spoilt = [bytes(data[: place % len(data)])]
    data[place % len(data)] ^= change
    spoilt.append(bytes(data))
    for content in spoilt:
        store.path.write_bytes(content)
        for _ in range(2):  # the second time from what the first one mended
            again = OnDisk(folder, {})
            ask, asked = recall(again)
            found = ask(batch)
            again.close()
            torch.testing.assert_close(found[0][0], exact[0][0])
            for name in TAPS:
                torch.testing.assert_close(found[1][name], exact[1][name], rtol=2**-7, atol=1e-5)
        assert asked == [] or content != spoilt[0]


def test_no_more_than_there_is_room_for(tmp_path, opened):
    kept = Kept(3, (torch.arange(12.0).reshape(3, 4),))
    layout = (Layout("stream", "float32", (-1, 4)),)
    for store in (InMemory(most_bytes=100), opened(tmp_path, {}, most_bytes=300)):
        for name in (b"a", b"b", b"c", b"d", b"e"):
            store.put(sample_key([name]), kept, layout)
        found = [store.get(sample_key([name])) for name in (b"a", b"b", b"c", b"d", b"e")]
        assert 2 <= sum(one is not None for one in found) < 5
        assert torch.equal(found[0].tensors[0], kept.tensors[0]) and found[0].tokens == 3
        assert store.get(sample_key([b"f"])) is None
    assert next(tmp_path.iterdir()).stat().st_size <= 300
    with pytest.raises(InvalidData, match="delete it"):
        store.put(sample_key([b"g"]), Kept(3, (torch.zeros(4),)), (Layout("logits", "float32", (4,)),))


def test_parts_of_a_key_are_kept_apart():
    assert sample_key([b"ab", b"c"]) != sample_key([b"a", b"bc"]) != sample_key([b"a", b"b", b"c"])
    assert len(sample_key([])) == 16


def test_outputs_of_each_token_are_kept_by_token(tmp_path, opened):
    """Where an answer begins and ends: (batch, tokens) scores."""
    proto = TEACHER.structure.copy_proto()
    proto.graph.output.append(next(value for value in proto.graph.value_info if value.name == BLOCK.stream))
    net = Network(Graph.from_proto(proto))
    ask, asked = counted(asking(net, (), CPU))
    remembered = recalling(ask, opened(tmp_path, {}), "attention_mask", by_token=(1,))
    batch = tensors(n=6, longest=7, pad=2)
    exact = remembered(batch)[0]
    again = remembered({name: tensor[3:, :8] for name, tensor in batch.items()})[0]
    mask = batch["attention_mask"][3:, :8] != 0
    assert asked == [(6, 7)] and exact[1].shape == (6, 9, 8) and again[1].shape == (3, 8, 8)
    torch.testing.assert_close(again[1][mask], net.run(batch)[BLOCK.stream][3:, :8][mask].detach())


def test_a_model_of_fixed_length_is_asked_as_it_is():
    ask, asked = recall(InMemory(), trim=False)
    batch = tensors(n=4, longest=5, pad=3)
    first = ask(batch)[0][0]
    second = ask({name: tensor[[2, 1]] for name, tensor in batch.items()})[0][0]
    assert asked == [(4, 8)] and torch.equal(second, first[[2, 1]])
    blank = {name: np.zeros_like(tensor[:1]) for name, tensor in encoders.texts(n=4, longest=5, pad=3).items()}
    whole, asked = recall(InMemory())
    whole({name: torch.from_numpy(value) for name, value in blank.items()})
    assert asked == [(1, 8)]  # a text that attends to nothing keeps its length
