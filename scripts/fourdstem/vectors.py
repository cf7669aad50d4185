"""Words for loops that are written for the vector units: where numbers lie, and vectors of them.

A compiler does not find such loops by itself, or makes short vectors of them behind checks that cost as much as the
work. `methods.nonlocal_average.vectors` and `methods.orientation.vectors` state theirs as vectors of a given length,
which a compiler splits into those that a processor has.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils, typing
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global

LANES = 16  # numbers in the widest vectors of float32 that there are
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
LANE, INDEX = ir.IntType(32), ir.IntType(64)
ONCE = ("contract",)  # multiply and add may be rounded once


def compiled(python, result=types.void):
    """Let what is decorated, which writes ``python`` for LLVM, take its place in compiled code."""

    @infer_global(python)
    class _(AbstractTemplate):
        def generic(self, arguments, _):
            return typing.signature(result, *arguments)

    return lower_builtin(python, types.VarArg(types.Any))


def data(context, builder, signature, arguments):
    """Return where the numbers of the arrays among the arguments begin; they are taken to lie together."""
    arrays = [(kind, value) for kind, value in zip(signature.args, arguments, strict=True) if hasattr(kind, "layout")]
    known = types.float32, types.float64, types.int64
    if any(kind.layout != "C" or kind.dtype not in known for kind, _ in arrays):
        raise TypeError(f"not C-contiguous float32, float64 or int64: {signature.args}")
    return [context.make_array(kind)(context, builder, value).data for kind, value in arrays]


def scalars(context, builder, signature, arguments):
    """Return the arguments that are no arrays, those in tuples too: whole numbers as int64, others as they are."""
    found = []
    for kind, value in zip(signature.args, arguments, strict=True):
        if isinstance(kind, types.BaseTuple):
            found += zip(kind.types, cgutils.unpack_tuple(builder, value), strict=True)
        elif not hasattr(kind, "layout"):
            found.append((kind, value))
    return [
        context.cast(builder, value, kind, types.int64) if isinstance(kind, types.Integer) else value
        for kind, value in found
    ]


def vector(builder, numbers, at, length):
    """Return where some numbers begin, as a vector."""
    return builder.bitcast(builder.gep(numbers, [at]), ir.VectorType(numbers.type.pointee, length).as_pointer())


def load(builder, numbers, at, length):
    """Return some numbers as a vector, wherever they lie."""
    loaded = builder.load(vector(builder, numbers, at, length))
    loaded.align = _width(numbers)
    return loaded


def store(builder, values, numbers, at):
    """Write a vector, wherever it shall lie."""
    stored = builder.store(values, vector(builder, numbers, at, values.type.count))
    stored.align = _width(numbers)


def _width(numbers) -> int:
    return 4 if numbers.type.pointee == FLOAT else 8


def spread(builder, number, length):
    """Return a vector of one number."""
    nothing = ir.Constant(ir.VectorType(number.type, length), ir.Undefined)
    first = builder.insert_element(nothing, number, LANE(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(LANE, length), None))
