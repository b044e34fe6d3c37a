"""Models in: `intake` makes a model out of what a user names. Example nets live beside it (`edgewise.models.resnet`)."""

from edgewise.models.intake import Intake, intake

__all__ = ["Intake", "intake"]
