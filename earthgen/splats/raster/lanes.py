"""Building blocks of the compiled loops over a row of pixels, which LLVM turns into vector
instructions.

numba's indexing wraps negative indices and its `a * b + c` rounds twice; both prevent fast vector
code. These functions do not check bounds: callers index only arrays that they created.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

F = np.float32

LANES = 16
"""Floats of a row: one vector of 512 bits, or two of 256."""

# exp(-x / 8) = 1 + x (E1 + E2 x + ...), interpolated at Chebyshev nodes of [0, 6]. Squared three
# times, the relative error is 1.5e-7, and 1.5e-6 with the roundings of float32.
E1, E2, E3 = F(-0.12499999836595471), F(0.007812480365128215), F(-0.00032548238928441)
E4, E5, E6 = F(1.014479414000311e-05), F(-2.451525675018397e-07), F(3.8603388327743856e-09)
HALF, ONE = F(0.5), F(1)

MOST = F(6)
"""Exponents are limited to this: exp(-6) is below the least alpha, 1 / 255, for any opacity."""


def _fma(context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32, rounded once if the processor supports it."""
    signature = types.float32(types.float32, types.float32, types.float32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FloatType()
        function = builder.module.declare_intrinsic(
            "llvm.fmuladd", [kind], ir.FunctionType(kind, [kind, kind, kind])
        )
        return builder.call(function, args)

    return signature, generate


def _load(context: Any, array: Any, index: Any) -> Any:
    """array[index] of a contiguous float32 array (n,); the index is not checked and does not
    wrap."""
    signature = types.float32(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wrapped = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.load(builder.gep(wrapped.data, [args[1]], inbounds=True))

    return signature, generate


def _store(context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value of a contiguous float32 array (n,); the index is not checked and does
    not wrap."""
    signature = types.void(array, types.int64, types.float32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wrapped = context.make_array(signature.args[0])(context, builder, args[0])
        builder.store(args[2], builder.gep(wrapped.data, [args[1]], inbounds=True))
        return context.get_dummy_value()

    return signature, generate


def _reduce(builder: Any, vector: Any) -> Any:
    """The sum of a vector of `LANES` floats, by repeatedly adding its halves."""
    width = LANES
    while width > 1:
        width //= 2
        low, high = (
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), width), list(lanes))
            )
            for lanes in (range(width), range(width, 2 * width))
        )
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _vector(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    wrapped = context.make_array(array_type)(context, builder, array)
    at = builder.gep(wrapped.data, [index], inbounds=True)
    return builder.load(
        builder.bitcast(at, ir.VectorType(ir.FloatType(), LANES).as_pointer()), align=4
    )


def _total(context: Any, array: Any, index: Any) -> Any:
    """The sum of `LANES` floats of an array (n,) from an index on; the index is not checked."""
    signature = types.float32(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _reduce(builder, _vector(context, builder, signature.args[0], *args))

    return signature, generate


def _moment(context: Any, array: Any, index: Any) -> Any:
    """The sum of `LANES` floats times their position in the row."""
    signature = types.float32(array, types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = _vector(context, builder, signature.args[0], *args)
        lanes = ir.Constant(
            vector.type, [ir.Constant(ir.FloatType(), float(lane)) for lane in range(LANES)]
        )
        return _reduce(builder, builder.fmul(vector, lanes))

    return signature, generate


# For mypy the results of `intrinsic` are functions with the context as their first argument.
fma: Any = intrinsic(_fma)
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
total: Any = intrinsic(_total)
moment: Any = intrinsic(_moment)


@njit(error_model="numpy", nogil=True, cache=True)
def gaussian(square):  # type: ignore[no-untyped-def]
    """exp(-square / 2) in float32, square >= 0."""
    x = HALF * square
    x = x if x < MOST else MOST
    y = fma(E6, x, E5)
    y = fma(y, x, E4)
    y = fma(y, x, E3)
    y = fma(y, x, E2)
    y = fma(y, x, E1)
    y = fma(y, x, ONE)
    y = y * y
    y = y * y
    return y * y
