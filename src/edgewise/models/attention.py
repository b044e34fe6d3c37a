"""ONNX's Attention (opset 23), without its cache."""

from __future__ import annotations

import torch
from torch import Tensor

from edgewise.models.binding import Function, Node

_CACHE = (4, 5, 6)  # past_key, past_value, nonpad_kv_seqlen


def attention(node: Node) -> Function:
    """softmax(q kᵀ * scale + mask) v, in plain products.

    q, k, v: (batch, heads, tokens, size), or (batch, tokens, heads * size); several heads of q may share one of k and v.
    """
    if any(node.given(position) for position in _CACHE) or node.outputs > 1:
        raise node.refuse("it keeps keys and values between calls, or gives its scores out; export the model without a cache")
    if max(node.attribute("left_window_size", -1), node.attribute("right_window_size", -1)) >= 0:
        raise node.refuse("it attends within a window; export the model with the mask written out")
    heads, kv_heads = node.attribute("q_num_heads", 0), node.attribute("kv_num_heads", 0)
    stated, softcap, causal = node.attribute("scale", None), node.attribute("softcap", 0.0), bool(node.attribute("is_causal", 0))

    def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        flat = q.dim() == 3
        if flat:
            q = q.unflatten(2, (heads, -1)).transpose(1, 2)
            k, v = (x.unflatten(2, (kv_heads, -1)).transpose(1, 2) for x in (k, v))
        if (share := q.shape[1] // k.shape[1]) > 1:
            k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        scale = q.shape[3] ** -0.5 if stated is None else stated
        scores = (q * scale) @ k.transpose(2, 3)
        if softcap > 0:
            scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        if causal:
            past = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~past, float("-inf"))
        if mask is None:
            y = torch.softmax(scores, -1) @ v
        else:  # a token that may attend to nothing gets zeros, and not what softmax makes of a row of -inf
            nothing = scores.isneginf().all(-1, keepdim=True)
            y = torch.softmax(scores.masked_fill(nothing, 0), -1).masked_fill(nothing, 0) @ v
        return y.transpose(1, 2).flatten(2) if flat else y

    return attended
