"""TensorFlow functions that Keras 2 put into a graph (TFOpLambda, SlicingOpLambda) as Keras 3 layers or operations.

`x / 127.5 - 1` under tf_keras is two calls of TensorFlow functions; here they become Rescaling layers, which every
later part knows. Whatever is not in the table is refused by name: a file could name any function of TensorFlow,
`io.write_file` among them. Signatures are those of TensorFlow 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import layers, ops

KINDS = ("TFOpLambda", "SlicingOpLambda")
COMPAT = "compat.v1."


def apply(symbol: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
    """What the function gives. ValueError for one that is not in the table."""
    function = FUNCTIONS.get(symbol.removeprefix(COMPAT))
    if function is None:
        raise ValueError(f"tf.{symbol} is not among the functions that can be carried over")
    given = {key: value for key, value in kwargs.items() if key != "name" and value is not None}
    while args and args[-1] is None:  # a name, or what TensorFlow 1 also took
        args = args[:-1]
    return function(name, *args, **given)


def known(symbol: str) -> bool:
    """Whether `apply` takes a TensorFlow function of that name."""
    return symbol.removeprefix(COMPAT) in FUNCTIONS


# ---------------------------------------------------------------- arithmetic


def _add(name: str, x: Any, y: Any) -> Any:
    x, y = (y, x) if not _tensor(x) else (x, y)
    if not _tensor(y):
        return _line(name, x, 1.0, y, ops.add)
    return layers.Add(name=name)([x, y]) if _alike(x, y) else ops.add(x, y)


def _subtract(name: str, x: Any, y: Any) -> Any:
    if not _tensor(y):
        return _line(name, x, 1.0, -np.asarray(y, np.float32), ops.add)
    if not _tensor(x):
        return ops.subtract(_constant(x), y) if np.size(x) > 1 else layers.Rescaling(-1.0, _number(x), name=name)(y)
    return layers.Subtract(name=name)([x, y]) if _alike(x, y) else ops.subtract(x, y)


def _multiply(name: str, x: Any, y: Any) -> Any:
    x, y = (y, x) if not _tensor(x) else (x, y)
    if not _tensor(y):
        return _line(name, x, y, 0.0, ops.multiply)
    return layers.Multiply(name=name)([x, y]) if _alike(x, y) else ops.multiply(x, y)


def _divide(name: str, x: Any, y: Any) -> Any:
    if not _tensor(y):
        return _line(name, x, 1.0 / np.asarray(y, np.float64), 0.0, ops.multiply)
    return ops.divide(x if _tensor(x) else _constant(x), y)


def _line(name: str, x: Any, scale: Any, offset: Any, otherwise: Callable[[Any, Any], Any]) -> Any:
    """x * scale + offset as a Rescaling layer, where the constant is one number or one for each channel."""
    constants = [np.asarray(value, np.float64) for value in (scale, offset)]
    channels = [c for c in constants if c.size > 1]
    if all(c.size == x.shape[-1] == c.shape[-1] for c in channels):
        numbers = [c.reshape(-1).tolist() if c.size > 1 else float(c.reshape(())) for c in constants]
        return layers.Rescaling(*numbers, name=name)(x)
    return otherwise(x, _constant(channels[0]))


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def call(name: str, x: Any, y: Any) -> Any:
        return function(*(value if _tensor(value) else _constant(value) for value in (x, y)))

    return call


def _unary(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda name, x: function(x)


# ---------------------------------------------------------------- activations


def _activation(kind: str) -> Callable[..., Any]:
    def call(name: str, x: Any = None, features: Any = None) -> Any:
        return layers.Activation(kind, name=name)(features if x is None else x)

    return call


def _relu6(name: str, features: Any) -> Any:
    return layers.ReLU(max_value=6.0, name=name)(features)


def _leaky_relu(name: str, features: Any, alpha: float = 0.2) -> Any:
    return layers.LeakyReLU(negative_slope=float(alpha), name=name)(features)


def _gelu(name: str, features: Any, approximate: bool = False) -> Any:
    return ops.gelu(features, approximate=bool(approximate))


def _silu(name: str, features: Any, beta: float = 1.0) -> Any:
    if float(beta) != 1.0:
        raise ValueError(f"beta is {beta}")
    return layers.Activation("silu", name=name)(features)


def _softmax(name: str, logits: Any, axis: Any = -1) -> Any:
    return layers.Softmax(axis=int(axis), name=name)(logits)


def _clip(name: str, t: Any, clip_value_min: Any, clip_value_max: Any) -> Any:
    low, high = _number(clip_value_min), _number(clip_value_max)
    return layers.ReLU(max_value=high, name=name)(t) if low == 0.0 and high > 0 else ops.clip(t, low, high)


# ---------------------------------------------------------------- shapes


def _cast(name: str, x: Any, dtype: Any) -> Any:
    """Whatever kind of float the old model computed in, the new one computes in float32."""
    wanted = str(getattr(dtype, "name", dtype))
    if "float" not in wanted:
        return ops.cast(x, wanted)
    return x if str(x.dtype) == "float32" else ops.cast(x, "float32")


def _reshape(name: str, tensor: Any, shape: Any) -> Any:
    first, *rest = [int(size) for size in np.asarray(shape).tolist()]
    if first not in (-1, tensor.shape[0]):
        raise ValueError(f"it reshapes over the batch, to {shape}")
    return layers.Reshape(tuple(rest), name=name)(tensor)


def _concat(name: str, values: Any, axis: Any) -> Any:
    return layers.Concatenate(axis=int(axis), name=name)(list(values))


def _reduction(pool: Any, reduce: Callable[..., Any]) -> Callable[..., Any]:
    def call(name: str, input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
        axes = None if axis is None else [int(a) for a in np.atleast_1d(axis)]
        rank = len(input_tensor.shape)
        if pool and axes and rank == 4 and sorted(a % rank for a in axes) == [1, 2]:
            return pool(keepdims=bool(keepdims), name=name)(input_tensor)
        return reduce(input_tensor, axis=axes, keepdims=bool(keepdims))

    return call


def _pad(name: str, tensor: Any, paddings: Any, mode: str = "CONSTANT", *rest: Any, constant_values: Any = 0) -> Any:
    """rest: a name and the value, in either order (compat.v1.pad and pad)."""
    constant_values = next((value for value in rest if value is not None), constant_values)
    pairs = [tuple(int(n) for n in pair) for pair in np.asarray(paddings).tolist()]
    zero = mode.upper() == "CONSTANT" and _number(constant_values) == 0
    if zero and len(pairs) == 4 and pairs[0] == pairs[3] == (0, 0):
        return layers.ZeroPadding2D((pairs[1], pairs[2]), name=name)(tensor)
    value = {"constant_values": _number(constant_values)} if mode.upper() == "CONSTANT" else {}
    return ops.pad(tensor, pairs, mode=mode.lower(), **value)


def _resize(  # noqa: PLR0917 - as tf.image.resize has them
    name: str,
    images: Any,
    size: Any,
    method: str = "bilinear",
    preserve_aspect_ratio: bool = False,
    antialias: bool = False,
) -> Any:
    if preserve_aspect_ratio or antialias:
        raise ValueError("it resizes with antialias or preserve_aspect_ratio")
    height, width = (int(side) for side in np.asarray(size).tolist())
    return layers.Resizing(height, width, interpolation=str(method), name=name)(images)


def _split(name: str, value: Any, num_or_size_splits: Any, axis: Any = 0) -> Any:
    sizes = np.asarray(num_or_size_splits)
    return ops.split(value, int(sizes) if sizes.ndim == 0 else np.cumsum(sizes)[:-1].tolist(), axis=int(axis))


def _transpose(name: str, a: Any, perm: Any = None, conjugate: bool = False) -> Any:
    axes = None if perm is None else [int(p) for p in np.asarray(perm).tolist()]
    if axes and axes[0] == 0:
        return layers.Permute(tuple(axes[1:]), name=name)(a)
    return ops.transpose(a, axes)


def _normalize(name: str, x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
    if axis is None:
        raise ValueError("it normalizes over the whole batch")
    if float(epsilon) == 1e-12:  # the value inside UnitNormalization too
        return layers.UnitNormalization(axis=np.atleast_1d(axis).tolist(), name=name)(x)
    return ops.normalize(x, axis=int(axis), epsilon=float(epsilon))


def _getitem(name: str, x: Any, slice_spec: Any) -> Any:
    return x[tuple(_slice(part) for part in (slice_spec if isinstance(slice_spec, list | tuple) else [slice_spec]))]


def _slice(part: Any) -> Any:
    if isinstance(part, dict):
        return slice(part["start"], part["stop"], part["step"])
    return int(part) if isinstance(part, np.ndarray | np.integer) else part


# ---------------------------------------------------------------- values


def _tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _alike(x: Any, y: Any) -> bool:
    """Whether a merging layer takes the two: it broadcasts, but only between tensors of one rank."""
    return len(x.shape) == len(y.shape)


def _constant(value: Any) -> Any:
    array = np.asarray(value, np.float32)
    return float(array.reshape(())) if array.size == 1 else array


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(()))


FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **dict.fromkeys(("math.add", "add", "__operators__.add"), _add),
        **dict.fromkeys(("math.subtract", "subtract", "__operators__.sub"), _subtract),
        **dict.fromkeys(("math.multiply", "multiply", "__operators__.mul"), _multiply),
        **dict.fromkeys(("math.truediv", "math.divide", "divide", "realdiv", "__operators__.truediv"), _divide),
        "nn.bias_add": lambda name, value, bias, data_format="NHWC": _add(name, value, bias),
        "math.add_n": lambda name, inputs: layers.Add(name=name)(list(inputs)),
        "math.maximum": _binary(ops.maximum),
        "math.minimum": _binary(ops.minimum),
        "math.pow": _binary(ops.power),
        "linalg.matmul": lambda name, a, b: ops.matmul(a, b),
        "math.square": _unary(ops.square),
        "math.sqrt": _unary(ops.sqrt),
        "math.rsqrt": _unary(ops.rsqrt),
        "math.exp": _unary(ops.exp),
        "math.log": _unary(ops.log),
        "math.abs": _unary(ops.absolute),
        "math.negative": lambda name, x: layers.Rescaling(-1.0, name=name)(x),
        "math.squared_difference": _binary(lambda x, y: ops.square(ops.subtract(x, y))),
        **dict.fromkeys(("identity", "stop_gradient", "convert_to_tensor"), lambda name, x: x),
        "cast": _cast,
        "nn.relu": _activation("relu"),
        "nn.relu6": _relu6,
        "nn.leaky_relu": _leaky_relu,
        "nn.elu": _activation("elu"),
        "nn.selu": _activation("selu"),
        "nn.gelu": _gelu,
        **dict.fromkeys(("nn.silu", "nn.swish"), _silu),
        **dict.fromkeys(("math.sigmoid", "nn.sigmoid", "sigmoid"), _activation("sigmoid")),
        **dict.fromkeys(("math.tanh", "nn.tanh", "tanh"), _activation("tanh")),
        **dict.fromkeys(("math.softplus", "nn.softplus"), _activation("softplus")),
        "nn.softmax": _softmax,
        "clip_by_value": _clip,
        "reshape": _reshape,
        "concat": _concat,
        "math.reduce_mean": _reduction(layers.GlobalAveragePooling2D, ops.mean),
        "math.reduce_max": _reduction(layers.GlobalMaxPooling2D, ops.max),
        "math.reduce_sum": _reduction(None, ops.sum),
        "math.reduce_min": _reduction(None, ops.min),
        "expand_dims": lambda name, input, axis: ops.expand_dims(input, int(axis)),
        "squeeze": lambda name, input, axis=None: ops.squeeze(input, axis),
        "stack": lambda name, values, axis=0: ops.stack(list(values), axis=int(axis)),
        "split": _split,
        "transpose": _transpose,
        "reverse": lambda name, tensor, axis: ops.flip(tensor, [int(a) for a in np.atleast_1d(axis)]),
        "pad": _pad,
        "image.resize": _resize,
        **dict.fromkeys(("math.l2_normalize", "nn.l2_normalize", "linalg.l2_normalize"), _normalize),
        "__operators__.getitem": _getitem,
    }
)
