"""Tiny transformers of the shapes that encoders come in, seeded, as folders: for tests of what takes a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.types import Inputs

WORDS = 96
_SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
_DISTILLED: dict[str, Any] = {"vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}


def _configs() -> Mapping[str, Callable[..., Any]]:
    import transformers as hf

    return {
        "bert": lambda **more: hf.BertConfig(**_SIZES, **more),
        "distilbert": lambda **more: hf.DistilBertConfig(**_DISTILLED, **more),
        # Positions begin behind the padding's id.
        "roberta": lambda **more: hf.RobertaConfig(**{**_SIZES, "max_position_embeddings": 42}, type_vocab_size=1, pad_token_id=1, **more),
        "minilm": lambda **more: hf.BertConfig(**_SIZES, layer_norm_eps=1e-12, **more),
        "electra": lambda **more: hf.ElectraConfig(**_SIZES, embedding_size=16, **more),
    }


SHAPES = ("bert", "distilbert", "roberta", "minilm", "electra")


def model(shape: str, kind: str = "AutoModelForSequenceClassification", **config: Any) -> Any:
    """The transformers model of that shape and Auto class, in evaluation mode; norms and biases as training leaves them."""
    import torch
    import transformers as hf

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(hf, kind).from_config(_configs()[shape](**config), attn_implementation="eager")
        for name, parameter in made.named_parameters():
            if parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=float(name.endswith("LayerNorm.weight") or "layer_norm.weight" in name), std=0.1)
            else:  # large enough that attention isn't the same everywhere
                torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def folder(place: Path, shape: str, kind: str = "AutoModelForSequenceClassification", **config: Any) -> Path:
    """Such a model written to `place`; with kind "AutoModel", minilm in the layout of sentence-transformers: mean, then length 1."""
    made = model(shape, kind, **config)
    made.save_pretrained(place)
    if shape == "minilm" and kind == "AutoModel":
        steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(steps)
        ]
        (place / "modules.json").write_text(json.dumps(modules))
        (place / "1_Pooling").mkdir()
        (place / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}))
    return place


def tokens(batch: int, length: int, *, pairs: bool = False, seed: int = 0) -> Inputs:
    """Ids and mask (batch, length) int64, the first row full, the others filled up with the padding's id from a place of their own on."""
    random = np.random.default_rng((seed, batch, length))
    ids = random.integers(3, WORDS, (batch, length))
    counts = np.array([length, *random.integers(1, length + 1, batch - 1)])
    mask = (np.arange(length) < counts[:, None]).astype(np.int64)
    found = {"input_ids": np.where(mask == 1, ids, 1), "attention_mask": mask}
    return found | ({"token_type_ids": (np.arange(length) > counts[:, None] // 2).astype(np.int64) * mask} if pairs else {})
