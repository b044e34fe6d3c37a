"""Texts in: files, columns, cleaning, splits, and how a text becomes a model's input. The field's side: `tokenizers` where ids are made."""

from edgewise.data.text.encoder import TextEncoder, read_tokenizer
from edgewise.data.text.preprocess import TextPreprocess

__all__ = ["TextEncoder", "TextPreprocess", "read_tokenizer"]
