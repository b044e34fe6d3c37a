"""`Encoder`: a transformers model with one plain output, in a form of which the export is a few nodes and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from edgewise.types import Signature, TensorSpec

T = TypeVar("T")

Head = Literal["classification", "regression", "question-answering", "embedding"]
Pooling = Literal["mean", "cls", "max"]

# What a score gets where no attention may go. exp of it is 0 in any floating type, and a row that is all padding stays finite,
# which with the lowest float32 it doesn't where an engine rounds to bfloat16.
MASKED = -1e4
# Models whose embeddings take positions from outside, and whose masks may come as what is added to the scores.
PREPARED = frozenset(("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"))


class Encoder(nn.Module):
    """`model` of transformers, asked as an engine will be.

    Takes input_ids, attention_mask (1: a token that counts) and, where the model tells sentences apart, token_type_ids; all of them
    (batch, tokens) int64. Without token_type_ids all tokens are of the first sentence. Gives one float32 tensor:

    - classification: logits (batch, classes); regression: logits (batch, 1);
    - question-answering: logits (batch, tokens, 2): that an answer begins, and that it ends at this token;
    - embedding: (batch, width), the last hidden states pooled over the tokens that count, of length 1 if `normalise`.

    The mask is made once for all layers, with an axis of one where transformers writes it out for every query, and positions are counted:
    the same numbers as transformers', in a graph of few nodes, of which every axis has a name.
    """

    def __init__(self, model: Any, head: Head, *, pooling: Pooling = "mean", normalise: bool = False) -> None:
        super().__init__()
        config = model.config
        self.model: Any
        self.model, self.head, self.pooling, self.normalise = model, head, pooling, normalise
        self.prepared = config.model_type in PREPARED
        self.sentences = int(getattr(config, "type_vocab_size", 0) or 0)
        embeddings = getattr(getattr(model, "base_model", model), "embeddings", None)
        # RoBERTa's positions are counted over what isn't padding, from one after the padding's id on.
        self.padding = int(config.pad_token_id) if hasattr(embeddings, "create_position_ids_from_input_ids") else None

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("embedding",) if self.head == "embedding" else ("logits",)

    @property
    def axes(self) -> dict[int, str]:
        """What is open besides the batch: axis of every input -> its name."""
        return {1: "tokens"}

    @property
    def takes(self) -> tuple[str, ...]:
        """Names of the inputs that make a difference."""
        return ("input_ids", "attention_mask", *(("token_type_ids",) if self.sentences > 1 else ()))

    @property
    def signature(self) -> Signature:
        config: Any = self.model.config
        last = {"question-answering": ("tokens", 2), "embedding": (int(config.hidden_size),)}.get(self.head, (int(config.num_labels),))
        inputs = tuple(TensorSpec(name, ("batch", "tokens"), "int64") for name in self.takes)
        return Signature(inputs, (TensorSpec(self.outputs[0], ("batch", *last), "float32"),))

    def fed(self, inputs: Mapping[str, T]) -> dict[str, T]:
        """Of what is given, what it takes."""
        return {name: inputs[name] for name in self.takes if name in inputs}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        given: dict[str, Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.prepared:
            here = 1 - attention_mask.to(next(self.model.parameters()).dtype)
            given |= {"attention_mask": here[:, None, None, :] * MASKED, "position_ids": self._positions(input_ids)}
        if self.sentences > 1 and token_type_ids is not None:
            given["token_type_ids"] = token_type_ids
        elif self.prepared and self.sentences:
            given["token_type_ids"] = input_ids.new_zeros(1, 1)
        if self.head == "question-answering":
            # transformers parts its two columns, which then had to be joined again.
            hidden = self.model.base_model(**given).last_hidden_state
            return self.model.qa_outputs(self.model.dropout(hidden) if hasattr(self.model, "dropout") else hidden)
        found = self.model(**given)
        return self._pooled(found.last_hidden_state, attention_mask) if self.head == "embedding" else found.logits

    def _positions(self, input_ids: Tensor) -> Tensor:
        """(1 or batch, tokens). Counted rather than cut from a table: onnx's inference loses an axis that is cut to a computed length."""
        if self.padding is None:
            return input_ids.new_ones(1, input_ids.shape[1]).cumsum(1) - 1
        real = (input_ids != self.padding).to(torch.int64)
        return real.cumsum(1) * real + self.padding

    def _pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = attention_mask[:, :, None].to(hidden.dtype)
            if self.pooling == "max":
                pooled = (hidden + (1 - mask) * MASKED).amax(1)
            else:
                pooled = (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
        return pooled / torch.linalg.vector_norm(pooled, dim=1, keepdim=True).clamp_min(1e-12) if self.normalise else pooled
