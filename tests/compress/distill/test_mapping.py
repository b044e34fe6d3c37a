"""Which layers of a student follow which of the teacher's: pruned from it, or made apart from it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgewise.compress.distill.mapping import MOST_RELATION_HEADS, mapped
from edgewise.errors import InvalidInput
from edgewise.export import export
from edgewise.graph import Graph, infer_shapes, parts, shrink
from edgewise.graph.blocks import blocks
from edgewise.graph.origins import ORIGINS, note_origins
from edgewise.testing import encoder_graphs as encoders
from edgewise.testing import nets

TEACHER = encoders.encoder(layers=4)
NAMES = [part.name for part in parts(TEACHER).parts if part.kind != "hidden"]  # heads of layer 0, neurons of layer 0, heads of layer 1, …


def pairs(student, teacher=TEACHER, how="auto"):
    return [(pair.ours, pair.theirs) for pair in mapped(student, teacher, how).streams]


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_each_layer_of_one_that_is_as_deep_follows_its_own(norm):
    teacher = encoders.encoder(layers=3, norm=norm)
    names = [part.name for part in parts(teacher).parts if part.kind != "hidden"]
    narrow = shrink(teacher, {names[0]: [1], names[1]: [2, 3], names[5]: [0]})
    ends = [block.stream for block in blocks(teacher)[1::2]]
    for student in (teacher, narrow):
        assert pairs(student, teacher) == [(end, end) for end in ends]
        found = mapped(student, teacher)
        assert all(pair.positions is None and not pair.projected for pair in found.streams)
        assert [(one.weights, other.weights) for one, other in found.attentions] == [(block.weights,) * 2 for block in blocks(teacher)[::2]]
    assert mapped(teacher, teacher).said == "6 of 6 blocks stayed, compared by name"


def test_what_stayed_makes_up_for_what_went_in_between():
    whole = blocks(TEACHER)
    # the feed-forward block of layer 0, all of layer 1, the attention of layer 3
    student = shrink(TEACHER, {NAMES[number]: [] for number in (1, 2, 3, 6)})
    ours = blocks(student)
    assert [block.weights for block in ours] == [whole[number].weights for number in (0, 4, 5, 7)]
    found = mapped(student, TEACHER)
    assert [(pair.ours, pair.theirs) for pair in found.streams] == [
        (ours[0].stream, whole[4].reads),  # layer 0 is to give what layer 2 reads in the teacher, behind layer 1
        (ours[2].stream, whole[7].reads),
        (ours[3].stream, whole[7].stream),
    ]
    assert [(one.query.tensor, other.query.tensor) for one, other in found.attentions] == [
        (ours[0].query.tensor, whole[0].query.tensor),
        (ours[1].query.tensor, whole[4].query.tensor),
    ]


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_the_end_follows_the_end_whatever_went_before_it(norm):
    teacher = encoders.encoder(layers=2, norm=norm)
    names = [part.name for part in parts(teacher).parts if part.kind != "hidden"]
    last = blocks(teacher)[-1].stream
    for gone in (names[2:], names[3:], names[1:3]):
        student = shrink(teacher, {name: [] for name in gone})
        assert pairs(student, teacher)[-1] == (blocks(student)[-1].stream, last)
    nothing = shrink(teacher, {name: [] for name in names})
    assert mapped(nothing, teacher).streams == () and mapped(nothing, teacher).relations() is None


def test_one_made_apart_follows_every_so_many_th_layer_or_the_last_ones():
    """N / M of TinyBERT (section 3.1), by its formula: layer m of M follows m · N / M."""
    other = encoders.encoder(layers=2, width=6, heads=3, prefix="small.")
    ends, ours = [block.stream for block in blocks(TEACHER)[1::2]], [block.stream for block in blocks(other)[1::2]]
    assert pairs(other) == pairs(other, how="uniform") == [(ours[0], ends[1]), (ours[1], ends[3])]
    assert pairs(other, how="last") == [(ours[0], ends[2]), (ours[1], ends[3])]
    three = encoders.encoder(layers=3, prefix="small.")
    assert [theirs for _, theirs in pairs(three)] == [ends[1], ends[2], ends[3]]
    found = mapped(other, TEACHER)
    assert all(pair.projected and (pair.width, pair.their_width) == (6, 8) for pair in found.streams)
    assert found.said == "layers 2, 4 of 4 compared"
    assert mapped(other, TEACHER).relations().heads == (2, 2, 2)  # what divides 6 and 8
    with pytest.raises(InvalidInput, match="mapping='names'"):
        mapped(other, TEACHER, "names")
    with pytest.raises(InvalidInput, match="5 layers and the teacher 4"):
        mapped(encoders.encoder(layers=5, prefix="deep."), TEACHER)


def test_a_twin_of_another_depth_is_not_taken_for_a_pruned_one():
    """Two exports of one family call their layers alike from the bottom up; what follows the layers, they don't."""
    twin = encoders.encoder(layers=2, seed=5)
    assert {block.weights for block in blocks(twin)} < {block.weights for block in blocks(TEACHER)}
    assert mapped(twin, TEACHER).said == "layers 2, 4 of 4 compared"
    assert mapped(twin, TEACHER, "names").said.endswith("by name")


def narrowed(graph, keep):
    """`graph` of which the stream has kept these channels, by hand."""
    proto = graph.copy_proto()
    before = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    stay = np.zeros(8, bool)
    stay[list(keep)] = True
    cut = {
        "embeddings.weight": [1], "head.weight": [0],
        **{name: [0] for name in before if ".norm." in name or name.endswith(("out.bias", "down.bias"))},
        **{name: [0] for name in before if name.endswith(("query.weight", "key.weight", "value.weight", "up.weight"))},
        **{name: [1] for name in before if name.endswith(("out.weight", "down.weight"))},
    }  # fmt: skip
    stays = {}
    for tensor in proto.graph.initializer:
        if tensor.name in cut:
            (axis,) = cut[tensor.name]
            stays[tensor.name] = [stay if i == axis else None for i in range(len(tensor.dims))]
            tensor.CopyFrom(numpy_helper.from_array(np.compress(stay, numpy_helper.to_array(tensor), axis=axis), tensor.name))
    note_origins(proto, stays)
    del proto.graph.value_info[:]
    return infer_shapes(Graph.from_proto(proto))


def test_channels_of_the_stream_that_went_are_known_by_their_places():
    student = narrowed(TEACHER, (1, 2, 3, 5, 7))
    found = mapped(student, TEACHER)
    assert [pair.positions for pair in found.streams] == [(1, 2, 3, 5, 7)] * 4 and not any(pair.projected for pair in found.streams)
    # of a teacher that was pruned before the student was, too
    assistant = narrowed(TEACHER, (0, 1, 3, 5, 6, 7))
    assert [pair.positions for pair in mapped(narrowed(TEACHER, (1, 3, 6)), assistant).streams] == [(1, 2, 4)] * 4
    assert all(pair.projected for pair in mapped(narrowed(TEACHER, (1, 2, 6)), assistant).streams)  # 2 isn't in that one
    # a file that lost the notes: a projection has to be learned
    proto = student.copy_proto()
    helper.set_model_props(proto, {})
    assert all(pair.projected for pair in mapped(Graph.from_proto(proto), TEACHER).streams)
    assert ORIGINS in {entry.key for entry in student.proto.metadata_props}
    json.loads(next(entry.value for entry in student.proto.metadata_props if entry.key == ORIGINS))
    onnx.checker.check_model(student.proto)


def test_relations_of_the_last_attention_or_of_another():
    student = shrink(TEACHER, {NAMES[0]: [0], NAMES[6]: [], NAMES[7]: []})
    whole = blocks(TEACHER)
    found = mapped(student, TEACHER)
    last = found.relations()
    assert [other.tensor for _, other in last.pairs] == [getattr(whole[4], name).tensor for name in ("query", "key", "value")]
    assert last.heads == (8, 8, 8) and max(last.heads) <= MOST_RELATION_HEADS
    first = found.relations(0)
    assert [one.width for one, _ in first.pairs] == [4, 4, 4] and first.heads == (4, 4, 4)
    with pytest.raises(InvalidInput, match="relation_layer=3: 3 attentions"):
        found.relations(3)


def test_transformers_only():
    picture = export(nets.mobilenet_like(), nets.example("mobilenet_like"))
    with pytest.raises(InvalidInput, match="for transformers"):
        mapped(TEACHER, picture)
    vit = export(nets.vit_like(), nets.example("vit_like"))
    assert len(mapped(vit, vit).streams) == 2
