"""What the minimal profile says by number: operators, attributes, texts, records (docs/format.md).

These tables are part of the format. An entry keeps its place and its meaning for ever; new ones go to the end. What stands in none of them
is spelled out, so an older reader loses nothing but the files that use entries which it doesn't have, and those it refuses.
"""

from __future__ import annotations

from typing import Any

# Operators of ONNX's own domain, the frequent ones first.
OPERATORS = tuple(
    """
    Conv Relu MaxPool Gemm MatMul Add Reshape Flatten Mul GlobalAveragePool AveragePool Clip Concat Softmax Sigmoid Transpose
    QuantizeLinear DequantizeLinear BatchNormalization ReduceMean Sub Div Pad Squeeze Unsqueeze Gather Slice Split Cast Shape Constant
    ConstantOfShape HardSwish HardSigmoid LeakyRelu Tanh Erf Gelu Sqrt Pow LayerNormalization Resize ConvTranspose ReduceSum ReduceMax
    Expand Where Identity Exp Log Neg Abs ArgMax LSTM GRU RNN Elu PRelu Softplus InstanceNormalization LogSoftmax Max Min GlobalMaxPool
    DepthToSpace SpaceToDepth Einsum TopK Equal Greater Less And Or Not ConvInteger MatMulInteger QLinearConv QLinearMatMul
    DynamicQuantizeLinear Mish Selu Swish Attention RMSNormalization GroupNormalization Acos Acosh AffineGrid ArgMin Asin Asinh Atan Atanh
    Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow CastLike Ceil Celu CenterCropPad Col2Im Compress Cos Cosh
    CumSum DFT DeformConv Det Dropout EyeLike Floor GatherElements GatherND GlobalLpPool GreaterOrEqual GridSample HammingWindow HannWindow
    Hardmax IsInf IsNaN LRN LessOrEqual LpNormalization LpPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Mod
    Multinomial NonMaxSuppression NonZero OneHot RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMin ReduceProd ReduceSumSquare ReverseSequence RoiAlign RotaryEmbedding Round STFT
    ScatterElements ScatterND Shrink Sign Sin Sinh Size Softsign Sum Tan ThresholdedRelu Tile Trilu Unique Upsample Xor
    """.split()  # noqa: SIM905
)

# Attributes with their values: one number stands for all of an entry's. What exporters spell out at every convolution costs a byte so.
# int, float, bytes and tuples of int are ONNX's INT, FLOAT, STRING and INTS.
SETS: tuple[dict[str, Any], ...] = (
    {"auto_pad": b"NOTSET", "dilations": (1, 1), "group": 1, "strides": (1, 1)},
    {"auto_pad": b"NOTSET", "dilations": (1, 1), "group": 1, "strides": (2, 2)},
    {"auto_pad": b"NOTSET", "ceil_mode": 0, "dilations": (1, 1), "pads": (0, 0, 0, 0), "storage_order": 0},
    {"auto_pad": b"NOTSET", "ceil_mode": 0, "count_include_pad": 1, "dilations": (1, 1), "pads": (0, 0, 0, 0)},
    {"auto_pad": b"NOTSET", "ceil_mode": 0, "count_include_pad": 0, "dilations": (1, 1), "pads": (0, 0, 0, 0)},
    {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1},
    {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (5, 5), "pads": (2, 2, 2, 2)},
    {"kernel_shape": (7, 7), "pads": (3, 3, 3, 3)},
    {"kernel_shape": (1, 1), "pads": (0, 0, 0, 0)},
    {"kernel_shape": (3, 3), "pads": (0, 0, 0, 0)},
    {"kernel_shape": (5, 5), "pads": (0, 0, 0, 0)},
    {"kernel_shape": (2, 2), "strides": (2, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2)},
    {"dilations": (1, 1), "group": 1, "strides": (1, 1)},
    {"dilations": (1, 1), "group": 1, "strides": (2, 2)},
    {"auto_pad": b"NOTSET", "dilations": (1,), "group": 1, "strides": (1,)},
    {"auto_pad": b"NOTSET"},
    {"auto_pad": b"SAME_UPPER"},
    {"auto_pad": b"VALID"},
    {"group": 1},
    {"dilations": (1, 1)},
    {"dilations": (1,)},
    {"strides": (1, 1)},
    {"strides": (2, 2)},
    {"strides": (1,)},
    {"pads": (0, 0, 0, 0)},
    {"pads": (1, 1, 1, 1)},
    {"pads": (2, 2, 2, 2)},
    {"pads": (3, 3, 3, 3)},
    {"pads": (0, 0)},
    {"pads": (1, 1)},
    {"kernel_shape": (1, 1)},
    {"kernel_shape": (2, 2)},
    {"kernel_shape": (3, 3)},
    {"kernel_shape": (4, 4)},
    {"kernel_shape": (5, 5)},
    {"kernel_shape": (7, 7)},
    {"kernel_shape": (3,)},
    {"transB": 1},
    {"transB": 0},
    {"alpha": 1.0},
    {"beta": 1.0},
    {"transA": 0},
    {"axis": 0},
    {"axis": 1},
    {"axis": -1},
    {"keepdims": 0},
    {"keepdims": 1},
    {"noop_with_empty_axes": 0},
    {"allowzero": 0},
    {"allowzero": 1},
    {"ceil_mode": 0},
    {"storage_order": 0},
    {"count_include_pad": 0},
    {"count_include_pad": 1},
    {"block_size": 0},
    {"saturate": 1},
    {"output_dtype": 0},
    {"precision": 0},
    {"to": 1},
    {"to": 7},
    {"epsilon": 1e-5},
    {"momentum": 0.9},
    {"training_mode": 0},
    {"perm": (0, 2, 3, 1)},
    {"perm": (0, 3, 1, 2)},
    {"perm": (0, 2, 1, 3)},
    {"perm": (0, 2, 1)},
    {"perm": (1, 0)},
    {"mode": b"constant"},
    {"start": 0},
)

# Names whose value follows, as what it is: i(nt), f(loat), s(tring), t(ensor), I(nts), F(loats), S(trings).
NAMES = tuple(
    tuple(entry.rsplit(":", 1))
    for entry in """
    kernel_shape:I pads:I strides:I dilations:I group:i axis:i axes:I perm:I to:i alpha:f beta:f epsilon:f momentum:f value:t
    value_float:f value_floats:F value_int:i value_ints:I value_string:s min:f max:f keepdims:i split:I num_outputs:i mode:s
    coordinate_transformation_mode:s nearest_mode:s cubic_coeff_a:f output_padding:I output_shape:I auto_pad:s ceil_mode:i
    count_include_pad:i storage_order:i transA:i transB:i block_size:i blocksize:i hidden_size:i direction:s activations:S
    activation_alpha:F activation_beta:F linear_before_reset:i layout:i clip:f equation:s largest:i sorted:i select_last_index:i
    approximate:s size:i bias:f lambd:f gamma:f num_groups:i stash_type:i start:i end:i shape:I seed:f dtype:i output_dtype:i saturate:i
    batch_dims:i exclusive:i reverse:i reduction:s is_causal:i kv_num_heads:i q_num_heads:i scale:f softcap:f num_heads:i
    interleaved:i rotary_embedding_dim:i detect_negative:i detect_positive:i p:i upper:i
    """.split()  # noqa: SIM905
)

# Texts of one byte (the first 64) or two. Names of inputs, outputs and axes, keys and values of records.
WORDS = tuple(
    """
    x y batch input output image images logits input_ids attention_mask token_type_ids sequence features probabilities scores linear
    linear_1 linear_2 linear_3 softmax add view output_0 output0 main classify size channels mean std scale resize crop
    interpolation layout kind stretch bilinear bicubic nearest NCHW NHWC top backend precision threads options fp32 bf16 onnxruntime
    openvino labels int8 batch_size seq sequence_length height width data sequence_output pooler_output audio signal tokens boxes class
    last_hidden_state hidden embedding embeddings input.1 input_1 input_0 x1 x2 y1 y2 z w h time steps axis_0 none true false
    ai.onnx.ml com.microsoft ai.onnx axis constant linear_4 linear_5 linear_6 addmm relu sigmoid squeeze mul
    """.split()  # noqa: SIM905
)

# Records with fixed fields, most often set first, each with the value that is not written. These defaults are the format's own: they don't
# follow `edgewise.data`. ... stands for "has none".
RECORDS: dict[str, dict[str, Any]] = {
    "image": {
        "size": ..., "mean": ..., "std": ..., "channels": 1, "scale": 1 / 255, "resize": "stretch", "crop": 1.0,
        "interpolation": "bilinear", "layout": "NCHW",
    },
    "classify": {"top": 5, "output": "logits"},
    "execution": {"backend": ..., "threads": 1, "precision": "fp32", "options": {}},
}  # fmt: skip
