"""Each loss against numpy, its gradient against finite differences, and that padding counts nowhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgewise.compress.distill.losses import distance, embedding_loss, relation_loss, teacher_loss

FLOATS = arrays.arrays(np.float64, (3, 5), elements=st.floats(-9, 9))


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def by_hand(student, teacher, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return (p * np.log(p / q)).sum(axis=-1).mean() * temperature**2


def drawn(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def attended(*lengths, tokens):
    return torch.arange(tokens)[None, :] < torch.tensor(lengths)[:, None]


@settings(deadline=None)
@given(FLOATS, FLOATS, st.floats(0.5, 8))
def test_class_scores_differ_by_kl(student, teacher, temperature):
    found = float(teacher_loss(torch.from_numpy(student), torch.from_numpy(teacher), temperature))
    assert found == pytest.approx(by_hand(student, teacher, temperature), rel=1e-6, abs=1e-9)
    assert found >= -1e-9
    assert float(teacher_loss(torch.from_numpy(teacher + 3), torch.from_numpy(teacher), temperature)) == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(FLOATS, FLOATS, st.floats(0.1, 50), st.floats(-20, 20))
def test_other_outputs_differ_by_error_over_variance(student, teacher, unit, offset):
    assume(teacher.var() > 1e-3)
    found = float(distance(torch.from_numpy(student), torch.from_numpy(teacher)))
    assert found == pytest.approx(((student - teacher) ** 2).mean() / teacher.var(), rel=1e-6)
    elsewhere = float(distance(torch.from_numpy(unit * student + offset), torch.from_numpy(unit * teacher + offset)))
    assert elsewhere == pytest.approx(found, rel=1e-5, abs=1e-9)
    # maps, and a single number for each sample, are no class scores
    for shape in ((15, 1), (1, 3, 5)):
        reshaped = teacher_loss(torch.from_numpy(student.reshape(shape)), torch.from_numpy(teacher.reshape(shape)), 2.0)
        assert float(reshaped) == pytest.approx(found, rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.sampled_from((1, 2, 3)), st.integers(0, 1000))
def test_relations_by_hand_text_by_text(lengths, heads, seed):
    """Widths differ, texts have several lengths; the reference knows no padding: each text alone, each head alone."""
    student, teacher = drawn(len(lengths), 6, 6, seed=seed), drawn(len(lengths), 6, 12, seed=seed + 1)
    rows = []
    for text, length in enumerate(lengths):
        for head in range(heads):
            shares = []
            for vectors in (teacher[text, :length].numpy(), student[text, :length].numpy()):
                size = vectors.shape[1] // heads
                mine = vectors[:, head * size : (head + 1) * size]
                shares.append(softmax(mine @ mine.T / np.sqrt(size)))
            rows += [*(shares[0] * np.log(shares[0] / shares[1])).sum(1)]
    mask = attended(*lengths, tokens=6)
    found = float(relation_loss(student.float(), teacher.float(), heads, mask))
    assert found == pytest.approx(np.mean(rows), rel=1e-3, abs=1e-5)
    if min(lengths) == 6:
        assert float(relation_loss(student.float(), teacher.float(), heads)) == pytest.approx(found, rel=1e-5)


def test_embeddings_by_hand():
    student, teacher = drawn(5, 8), drawn(5, 8, seed=1)
    ours, theirs = (each.numpy() / np.linalg.norm(each.numpy(), axis=1, keepdims=True) for each in (student, teacher))
    apart = 1 - (ours * theirs).sum(1).mean()
    assert apart == pytest.approx(((ours - theirs) ** 2).sum(1).mean() / 2)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    a, b = (np.array([each[i] @ each[j] for i, j in pairs]) for each in (ours, theirs))
    structure = ((a - b) ** 2).mean() / b.var()
    assert float(embedding_loss(student, teacher)) == pytest.approx(apart + structure)
    assert float(embedding_loss(3 * teacher, teacher)) == pytest.approx(0, abs=1e-9)
    # of other widths the directions can't be compared, only the texts with each other; a turn of all changes nothing then
    wide = torch.nn.functional.pad(teacher, (0, 3)) @ torch.linalg.qr(drawn(11, 11, seed=2))[0]
    assert float(embedding_loss(wide, teacher)) == pytest.approx(0, abs=1e-9)
    wide[0] += 1
    assert float(embedding_loss(wide, teacher)) > 0.01
    # two texts have one cosine, which has no variance; one has none
    for few in (1, 2):
        assert float(embedding_loss(student[:few], teacher[:few])) == pytest.approx(1 - (ours * theirs)[:few].sum(1).mean())
        assert float(embedding_loss(student[:few, :7], teacher[:few])) == 0


@pytest.mark.parametrize("loss", ["distance", "relations", "tokens", "scores"])
def test_padding_counts_nowhere(loss):
    """Longer padding, and whatever stands in it, changes neither the loss nor the gradient of what is no padding."""
    mask = attended(4, 2, 3, tokens=4)
    losses = {
        "distance": lambda a, b, mask: distance(a, b, mask),
        "relations": lambda a, b, mask: relation_loss(a, b, 3, mask),
        "tokens": lambda a, b, mask: teacher_loss(a[..., 0], b[..., 0], 2.0, mask),
        "scores": lambda a, b, mask: teacher_loss(a, b, 2.0, mask),
    }
    student, teacher = drawn(3, 4, 6).float().requires_grad_(), drawn(3, 4, 6, seed=1).float()
    found = losses[loss](student, teacher, mask)
    (gradient,) = torch.autograd.grad(found, student)
    for filling in (0.0, 7.5):
        more = torch.full((3, 5, 6), filling)
        padded = torch.cat([student.detach().masked_fill(~mask[..., None], filling), more], 1).requires_grad_()
        wide = torch.cat([teacher.masked_fill(~mask[..., None], -filling), -more], 1)
        again = losses[loss](padded, wide, attended(4, 2, 3, tokens=9))
        assert float(again.detach()) == pytest.approx(float(found.detach()), rel=1e-5)
        (other,) = torch.autograd.grad(again, padded)
        torch.testing.assert_close(other[:, :4][mask], gradient[mask], rtol=1e-4, atol=1e-6)
        assert not other[:, 4:].any() and not other[:, :4][~mask].any()


def test_a_token_counts_the_same_in_a_short_text_and_a_long_one():
    student, teacher, mask = drawn(2, 5, 3), drawn(2, 5, 3, seed=1), attended(5, 1, tokens=5)
    rows = [(student[i, j].numpy(), teacher[i, j].numpy()) for i, j in ((0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0))]
    ours, theirs = (np.stack([row[k] for row in rows]) for k in (0, 1))
    assert float(distance(student, teacher, mask)) == pytest.approx(((ours - theirs) ** 2).mean() / theirs.var())


def test_scores_of_tokens_are_a_choice_among_the_attended_ones():
    """Where an answer begins in a text (SQuAD): by hand, each text alone."""
    student, teacher, mask = drawn(2, 5), drawn(2, 5, seed=1), attended(5, 3, tokens=5)
    expected = np.mean([by_hand(student[i, :n].numpy()[None], teacher[i, :n].numpy()[None], 3.0) for i, n in ((0, 5), (1, 3))])
    assert float(teacher_loss(student, teacher, 3.0, mask)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a: distance(a, drawn(3, 4, 6, seed=1), attended(4, 2, 3, tokens=4)),
        lambda a: relation_loss(a, drawn(3, 4, 12, seed=1), 3, attended(4, 2, 3, tokens=4)),
        lambda a: embedding_loss(a[:, 0], drawn(3, 6, seed=1)),
        lambda a: embedding_loss(a[:, 0], drawn(3, 9, seed=1)),
        lambda a: teacher_loss(a[..., 0], drawn(3, 4, seed=1), 2.0, attended(4, 2, 3, tokens=4)),
    ],
)
def test_gradients_against_finite_differences(loss):
    student = drawn(3, 4, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student), student)
    steps = 1e-3
    for place in ((0, 0, 0), (1, 1, 2), (2, 0, 5), (1, 3, 0)):
        moved = [student.detach().clone() for _ in range(2)]
        moved[0][place] += steps
        moved[1][place] -= steps
        slope = (float(loss(moved[0])) - float(loss(moved[1]))) / (2 * steps)
        assert float(gradient[place]) == pytest.approx(slope, rel=1e-2, abs=2e-4)
