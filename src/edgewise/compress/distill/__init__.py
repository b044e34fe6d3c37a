"""The pass `distill`, and what other passes that train take of it."""

from edgewise.compress.distill.blending import Kept, Term, blended
from edgewise.compress.distill.distilling import LEARNING_RATE, distill, told
from edgewise.compress.distill.losses import distance, embedding_loss, relation_loss, teacher_loss
from edgewise.compress.distill.mapping import mapped
from edgewise.compress.distill.teacher import Tapped, Teacher, asking, recalling, remembering
from edgewise.compress.distill.teaching import learning

__all__ = [
    "LEARNING_RATE",
    "Kept",
    "Tapped",
    "Teacher",
    "Term",
    "asking",
    "blended",
    "distance",
    "distill",
    "embedding_loss",
    "learning",
    "mapped",
    "recalling",
    "relation_loss",
    "remembering",
    "teacher_loss",
    "told",
]
