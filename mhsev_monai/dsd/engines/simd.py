"""Vectors of float32 lanes for numba: one window in each lane, so that one instruction serves many windows.

numba vectorises simple loops only, and gives up on the recurrences of an eigensolver. Here a vector is a numba type of
its own, which LLVM lowers to the widest registers of the processor (AVX-512, AVX2, NEON) without a compiler on site.

A *row* is ``LANES`` consecutive numbers of a flat float32 array that starts on a 64-byte boundary; a *half* is the
first or the second ``LANES / 2`` of them. ``load`` and ``store`` do not check their index.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

LANES = 32
HALF = LANES // 2
ALIGNMENT = 64
"""Bytes: the widest register, and a cache line."""
FAINT = 1e-30
"""Squares up to this count as nothing; their reciprocals are still finite in float32."""

_FLOAT = ir.FloatType()
# Fused multiply-add is allowed, reordering is not: every run gives the same bits.
_FUSED = ("contract",)


class Lanes(types.Type):
    """``count`` float32 numbers."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Lanes({count})")


class LaneMask(types.Type):
    """``count`` truth values."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"LaneMask({count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_FLOAT, fe_type.count))


@register_model(LaneMask)
class _LaneMaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: LaneMask) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.count))


def aligned_zeros(n_numbers: int) -> NDArray[np.float32]:
    """A flat float32 array of zeros that starts on a 64-byte boundary."""
    spare = ALIGNMENT // 4
    memory = np.zeros(n_numbers + spare, dtype=np.float32)
    first = (-memory.ctypes.data % ALIGNMENT) // 4
    return memory[first : first + n_numbers]


def _spread(builder: Any, value: Any, count: int) -> Any:
    vector = ir.VectorType(_FLOAT, count)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), places)


def _as_lanes(context: Any, builder: Any, kind: types.Type, value: Any, count: int) -> Any:
    """A vector as it is, or a scalar in every lane."""
    if isinstance(kind, Lanes):
        return value
    return _spread(builder, context.cast(builder, value, kind, types.float32), count)


def _binary(symbol: Any, emit: Any, *, compares: bool = False) -> None:
    """Let ``symbol`` take two vectors, or a vector and a scalar in either order."""

    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            vectors = [kind for kind in args if isinstance(kind, Lanes)]
            others = [kind for kind in args if not isinstance(kind, Lanes)]
            if kws or len(args) != 2 or not vectors or not all(isinstance(kind, types.Number) for kind in others):
                return None
            if len({kind.count for kind in vectors}) != 1:
                return None
            result = LaneMask(vectors[0].count) if compares else vectors[0]
            return signature(result, *args)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = next(kind.count for kind in sig.args if isinstance(kind, Lanes))
        left, right = (
            _as_lanes(context, builder, kind, value, count) for kind, value in zip(sig.args, args, strict=True)
        )
        return emit(builder, left, right)

    for left, right in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(symbol, left, right)(lower)


_binary(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=_FUSED))
_binary(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=_FUSED))
_binary(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=_FUSED))
_binary(operator.truediv, lambda builder, a, b: builder.fdiv(a, b))
_binary(operator.lt, lambda builder, a, b: builder.fcmp_ordered("<", a, b), compares=True)
_binary(operator.le, lambda builder, a, b: builder.fcmp_ordered("<=", a, b), compares=True)
_binary(operator.gt, lambda builder, a, b: builder.fcmp_ordered(">", a, b), compares=True)
_binary(operator.ge, lambda builder, a, b: builder.fcmp_ordered(">=", a, b), compares=True)


def _logical(symbol: Any, emit: Any) -> None:
    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if kws or not all(isinstance(kind, LaneMask) for kind in args):
                return None
            return signature(args[0], *args)

    lower_builtin(symbol, LaneMask, LaneMask)(lambda context, builder, sig, args: emit(builder, *args))


_logical(operator.and_, lambda builder, a, b: builder.and_(a, b))
_logical(operator.or_, lambda builder, a, b: builder.or_(a, b))


def _holds_float32(*arrays: Any) -> bool:
    """Whether all are arrays of float32: the instructions read bytes and would not notice anything else."""
    return all(isinstance(kind, types.Array) and kind.dtype == types.float32 for kind in arrays)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, stride: int) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    offset = builder.mul(index, ir.Constant(index.type, stride))
    return builder.bitcast(builder.gep(data, [offset]), ir.VectorType(_FLOAT, stride).as_pointer())


def _load(count: int) -> Any:
    def typed(typingctx: Any, array: Any, index: Any) -> Any:
        if not _holds_float32(array):
            return None

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = context.cast(builder, args[1], sig.args[1], types.intp)
            pointer = _pointer(context, builder, sig.args[0], args[0], place, count)
            return builder.load(pointer, align=ALIGNMENT)

        return Lanes(count)(array, index), generate

    return typed


def _store(count: int) -> Any:
    def typed(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        if not _holds_float32(array):
            return None

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = context.cast(builder, args[1], sig.args[1], types.intp)
            pointer = _pointer(context, builder, sig.args[0], args[0], place, count)
            value = _as_lanes(context, builder, sig.args[2], args[2], count)
            builder.store(value, pointer, align=ALIGNMENT)
            return context.get_dummy_value()

        return types.void(array, index, value), generate

    return typed


def _eight(context: Any, builder: Any, sig: Any, args: Any, place: int) -> Any:
    """Pointer to the 8 numbers of the array ``args[place]`` that begin at the index behind it."""
    index = context.cast(builder, args[place + 1], sig.args[place + 1], types.intp)
    pointer = _pointer(context, builder, sig.args[place], args[place], index, 1)
    return builder.bitcast(pointer, ir.VectorType(_FLOAT, 8).as_pointer())


def _add_eight(typingctx: Any, array: Any, first: Any, values: Any, start: Any) -> Any:
    if not _holds_float32(array, values):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, source = _eight(context, builder, sig, args, 0), _eight(context, builder, sig, args, 2)
        both = builder.fadd(builder.load(target, align=4), builder.load(source, align=4))
        builder.store(both, target, align=4)
        return context.get_dummy_value()

    return types.void(array, first, values, start), generate


def _copy_eight(typingctx: Any, array: Any, first: Any, values: Any, start: Any) -> Any:
    if not _holds_float32(array, values):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, source = _eight(context, builder, sig, args, 0), _eight(context, builder, sig, args, 2)
        builder.store(builder.load(source, align=4), target, align=4)
        return context.get_dummy_value()

    return types.void(array, first, values, start), generate


def _shuffled(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))


_INTERLEAVED = [place // 2 + (place % 2) * HALF for place in range(2 * HALF)]
_EVEN, _ODD = list(range(0, 2 * HALF, 2)), list(range(1, 2 * HALF, 2))


def _lanes_to_lines(typingctx: Any, array: Any, first: Any, lines: Any) -> Any:
    if not _holds_float32(array, lines):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = _half_pointers(context, builder, sig, args, 0, step=2)
        vectors = [builder.load(row, align=ALIGNMENT) for row in rows]
        # Each round moves the highest bit of (row, lane) behind the lowest; three make it (lane, row).
        for _ in range(3):
            pairs = zip(vectors[:4], vectors[4:], strict=True)
            vectors = [
                _shuffled(builder, a, b, order)
                for a, b in pairs
                for order in (_INTERLEAVED[:HALF], _INTERLEAVED[HALF:])
            ]
        for number, vector in enumerate(vectors):
            builder.store(vector, _line_pointer(context, builder, sig, args, number), align=ALIGNMENT)
        return context.get_dummy_value()

    return types.void(array, first, lines), generate


def _lines_to_lanes(typingctx: Any, array: Any, first: Any, lines: Any) -> Any:
    if not _holds_float32(array, lines):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = [
            builder.load(_line_pointer(context, builder, sig, args, number), align=ALIGNMENT) for number in range(8)
        ]
        for _ in range(3):
            pairs = list(zip(vectors[0::2], vectors[1::2], strict=True))
            vectors = [_shuffled(builder, a, b, order) for order in (_EVEN, _ODD) for a, b in pairs]
        rows = _half_pointers(context, builder, sig, args, 0, step=2)
        for row, vector in zip(rows, vectors, strict=True):
            builder.store(vector, row, align=ALIGNMENT)
        return context.get_dummy_value()

    return types.void(array, first, lines), generate


def _half_pointers(context: Any, builder: Any, sig: Any, args: Any, place: int, step: int) -> list[Any]:
    index = context.cast(builder, args[place + 1], sig.args[place + 1], types.intp)
    places = (builder.add(index, ir.Constant(index.type, step * number)) for number in range(8))
    return [_pointer(context, builder, sig.args[place], args[place], at, HALF) for at in places]


def _line_pointer(context: Any, builder: Any, sig: Any, args: Any, number: int) -> Any:
    at = ir.Constant(context.get_value_type(types.intp), number)
    return _pointer(context, builder, sig.args[2], args[2], at, HALF)


add_eight = intrinsic(_add_eight)
"""``add_eight(array, i, values, j)``: add 8 numbers of ``values`` from ``j`` on to those of ``array`` from ``i`` on."""
copy_eight = intrinsic(_copy_eight)
"""``copy_eight(array, i, values, j)``: put 8 numbers of ``values`` from ``j`` on into ``array`` from ``i`` on."""
lanes_to_lines = intrinsic(_lanes_to_lines)
"""``lanes_to_lines(array, i, lines)``: 8 halves ``i, i + 2, ...`` to 8 consecutive numbers for each of their lanes.

``lines`` is an aligned array of ``8 * HALF`` numbers.
"""
lines_to_lanes = intrinsic(_lines_to_lanes)
"""``lines_to_lanes(array, i, lines)``: takes :data:`lanes_to_lines` back."""
load = intrinsic(_load(LANES))
"""``load(array, i)``: row ``i``."""
store = intrinsic(_store(LANES))
"""``store(array, i, value)``: vector, or one number for all lanes, into row ``i``."""
load_half = intrinsic(_load(HALF))
"""``load_half(array, i)``: half ``i``; row ``i`` holds the halves ``2 i`` and ``2 i + 1``."""
store_half = intrinsic(_store(HALF))
"""``store_half(array, i, value)``: into half ``i``."""


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """One number in every lane of a full vector."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _as_lanes(context, builder, sig.args[0], args[0], LANES)

    return Lanes(LANES)(value), generate


@intrinsic
def where(typingctx: Any, mask: Any, chosen: Any, other: Any) -> Any:
    """``chosen`` where ``mask`` holds, else ``other``; either may be one number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [_as_lanes(context, builder, sig.args[n], args[n], sig.args[0].count) for n in (1, 2)]
        return builder.select(args[0], *values)

    return Lanes(mask.count)(mask, chosen, other), generate


def _extreme(comparison: str) -> Any:
    def typed(typingctx: Any, first: Any, second: Any) -> Any:
        count = (first if isinstance(first, Lanes) else second).count

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            left, right = (_as_lanes(context, builder, k, v, count) for k, v in zip(sig.args, args, strict=True))
            return builder.select(builder.fcmp_ordered(comparison, left, right), left, right)

        return Lanes(count)(first, second), generate

    return typed


lower_of = intrinsic(_extreme("<"))
"""``lower_of(a, b)``: the lower in each lane."""
higher_of = intrinsic(_extreme(">"))
"""``higher_of(a, b)``: the higher in each lane."""


def _function(name: str) -> Any:
    def typed(typingctx: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = args[0].type
            function_type = ir.FunctionType(kind, [kind])
            llvm = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v{kind.count}f32")
            return builder.call(llvm, args)

        return value(value), generate

    return typed


root = intrinsic(_function("sqrt"))
"""``root(a)``: square root of each lane."""
magnitude = intrinsic(_function("fabs"))
"""``magnitude(a)``: absolute value of each lane."""


@intrinsic
def any_lane(typingctx: Any, mask: Any) -> Any:
    """True if ``mask`` holds in at least one lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(sig.args[0].count))
        return cgutils.is_not_null(builder, bits)

    return types.boolean(mask), generate
