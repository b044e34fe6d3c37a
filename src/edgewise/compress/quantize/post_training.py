"""The pass `quantize`: post-training quantization to 8-bit integers, without training and without labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from edgewise.compress.quantize import calibrate
from edgewise.compress.quantize.dynamic import quantize_dynamic
from edgewise.compress.quantize.options import checked, saturates
from edgewise.compress.quantize.place import place
from edgewise.compress.quantize.smooth import described, smoothed
from edgewise.compress.quantize.static import Progress, compressed, observe, prepared, settle
from edgewise.compress.quantize.tables import with_tables
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.records import Device
from edgewise.types import Compressed, Execution, Inputs


def quantize(
    model: Graph,
    *,
    calibration: Sequence[Inputs] = (),
    bits: int = 8,
    mode: Literal["static", "dynamic"] = "static",
    estimator: Literal["minmax", "percentile", "mse", "entropy"] = "mse",
    granularity: Literal["channel", "tensor"] = "channel",
    symmetric: bool = False,
    weight_symmetric: bool = True,
    reduce_range: bool | None = None,
    bias_correction: bool = True,
    equalize: bool = True,
    smooth: bool = True,
    rounding: Literal["nearest", "adaptive"] = "adaptive",
    residual: Literal["both", "one", "none"] = "both",
    embeddings: int = 8,
    skip: Collection[str] = (),
    device: Device | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Compressed:
    """Quantize convolutions and matrix products with constant weights to 8-bit integers: about 4x smaller, and faster where kernels exist.

    calibration: samples like those the model will see, {input name: array}; they are read, never labelled. 100 to 500 do.
    mode: "static" fixes the ranges of activations from calibration; "dynamic" takes them anew in every call (Gemm and MatMul only).
    estimator: how a range is read from what was seen; see `estimators`. granularity: one scale per output channel of a weight, or one.
    symmetric: activations centred on zero. weight_symmetric: weights centred on zero; False needs granularity="tensor".
    reduce_range: weights in 7 bits, so that no 16-bit sum of two products can saturate. None: where `device` (or this machine) needs it.
    bias_correction: restore each channel's mean. equalize: even out channels that share a scale (Nagel 2019, section 4.1).
    smooth: take what is large in a few channels of tokens into the weights that read them (SmoothQuant, Xiao 2022).
    rounding: "adaptive" chooses integers by what they do to the layer's output on calibration samples, and makes up for errors that
    arrive from the layers before; "nearest" looks at the weights alone. residual: see `place`.
    embeddings: bits of tables that rows are gathered from; 0 leaves them in float. Under 8 they make the package smaller, not the memory.
    skip: names of nodes to leave in float. execution: the engine that calibrates; the first one installed unless given.

    Returns a Graph in QDQ form, opset 13 or later; `touched` are the nodes that became integer, `skipped` those with weights that did not.
    Raises InvalidInput for options, InvalidData for calibration samples, InvalidModel when nothing can be quantized.
    """
    report = progress or (lambda what, share: None)
    if bits != 8:
        later = " (4 bits come with a later version)" if bits == 4 else ""
        raise InvalidInput(f"bits={bits}: QDQ graphs hold 8-bit integers here; give bits=8{later}")
    options = checked(
        mode=mode, estimator=estimator, granularity=granularity, symmetric=symmetric, weight_symmetric=weight_symmetric,
        reduce_range=saturates(device) if reduce_range is None else reduce_range, bias_correction=bias_correction, rounding=rounding,
        residual=residual, embeddings=embeddings, skip=skip,
    )  # fmt: skip
    if mode == "dynamic":
        graph, notes = prepared(model, options.skip)
        if smooth and calibration:
            samples, where = calibrate.checked(graph, calibration), execution or calibrate.default_execution()
            graph, eased = smoothed(graph, place(graph, skip=options.skip), samples, where)
            notes = (*notes, *described(eased))
        done = quantize_dynamic(
            graph, per_channel=granularity == "channel", reduce_range=options.reduce_range, skip=options.skip, notes=notes
        )
        return with_tables(done, options.skip, embeddings) if embeddings else done
    observed = observe(model, calibration, options, equalize=equalize, smooth=smooth, execution=execution, progress=report)
    return compressed(settle(observed, options, report), observed, options)
