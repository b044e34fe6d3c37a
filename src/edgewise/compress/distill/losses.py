"""How far a student is from its teacher: in its answers, in inner tensors, in how tokens relate to each other, in embeddings.

attended, where it is given: (batch, tokens) bool, the tokens that are no padding; the others count nowhere, whatever a batch is padded to.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, mse_loss, normalize

# Added to nothing: what a score of padding becomes. exp() of it is 0, and its difference from itself is no NaN.
_NEVER = -1e4


def teacher_loss(student: Tensor, teacher: Tensor, temperature: float, attended: Tensor | None = None) -> Tensor:
    """What an answer is apart from the teacher's: a scalar.

    Class scores, (batch, 2 or more classes): KL(softmax(teacher / T) ‖ softmax(student / T)) · T², mean over the batch; T² keeps the
    gradient's size as T grows (Hinton et al. 2015, section 2). Scores of tokens, (batch, tokens), likewise over those that are attended.
    Anything else: `distance`.
    """
    if student.ndim == 2 and student.shape[1] > 1:
        if attended is not None:
            student, teacher = (scores.masked_fill(~attended, temperature * _NEVER) for scores in (student, teacher))
        wanted, given = log_softmax(teacher / temperature, dim=1), log_softmax(student / temperature, dim=1)
        return kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2
    return distance(student, teacher, attended)


def distance(student: Tensor, teacher: Tensor, attended: Tensor | None = None) -> Tensor:
    """Mean squared error over the variance of the teacher's: 1 is as bad as answering its mean, whatever the unit.

    attended: of (batch, tokens, …), each of these tokens counts the same (the token loss of ZipLM, Kurtic et al. 2023, section 3.3).
    """
    if attended is not None:
        student, teacher = student[attended], teacher[attended]
    return mse_loss(student, teacher) / teacher.var(unbiased=False).clamp_min(1e-8)


def relation_loss(student: Tensor, teacher: Tensor, heads: int, attended: Tensor | None = None) -> Tensor:
    """Of queries, keys or values (batch, tokens, width): KL of the teacher's shares of attention among them from the student's.

    Both are parted anew into so many relation heads, so that neither widths nor attention heads need be the same: the shares are
    softmax(A Aᵀ / √d), A (batch, heads, tokens, d). Mean over heads and attended tokens (MiniLMv2, Wang et al. 2021, section 3.1).
    """
    wanted, given = _relations(teacher, heads, attended), _relations(student, heads, attended)
    apart = (wanted.exp() * (wanted - given)).sum(3)  # (batch, heads, tokens)
    return apart.mean() if attended is None else apart.transpose(1, 2)[attended].mean()


def embedding_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Of embeddings (batch, width), of which directions count: 1 - cosine, and `distance` of the cosines of each two texts of the batch.

    1 - cosine is half the squared error of the normalised embeddings. Where the widths differ, the second term is all there is.
    """
    ours, theirs = normalize(student, dim=1), normalize(teacher, dim=1)
    terms = [1 - (ours * theirs).sum(1).mean()] if ours.shape == theirs.shape else []
    if len(ours) > 2:
        pairs = torch.triu_indices(len(ours), len(ours), offset=1, device=ours.device)
        terms.append(distance(*((each @ each.T)[pairs[0], pairs[1]] for each in (ours, theirs))))
    return torch.stack(terms).sum() if terms else 0 * student.sum()


def _relations(vectors: Tensor, heads: int, attended: Tensor | None) -> Tensor:
    """(batch, heads, tokens, tokens) logarithms of shares."""
    parted = vectors.unflatten(2, (heads, -1)).transpose(1, 2)
    scores = parted @ parted.transpose(2, 3) * parted.shape[3] ** -0.5
    if attended is not None:
        scores = scores.masked_fill(~attended[:, None, None, :], _NEVER)
    return log_softmax(scores.float(), dim=3)
