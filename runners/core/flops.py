"""Cost of a step: FLOPs counted on the jaxpr, peak memory from XLA's analysis.

XLA's own FLOP count takes the body of a loop once, whatever its trip count; a jaxpr states the
length of every `scan`.
"""

import math
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# Primitives that move or create data without arithmetic.
_FREE = frozenset(
    {
        "bitcast_convert_type",
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "iota",
        "optimization_barrier",
        "pad",
        "random_unwrap",
        "random_wrap",
        "reshape",
        "rev",
        "select_n",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)


def flops(function: Any, *args: Any) -> int:
    """Floating-point operations of `function(*args)`; a multiply-add counts as two.

    Matrix products, convolutions and FFTs by their size, every other operation once per element of
    its result (a reduction, of its operand). A `scan` counts its length times, for `cond`, the most
    expensive branch; for `while_loop`, whose length is unknown, the body once.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_equation(eqn) for eqn in jaxpr.eqns)


def _equation(eqn: JaxprEqn) -> int:
    name, params = eqn.primitive.name, eqn.params
    out = max((math.prod(v.aval.shape) for v in eqn.outvars if hasattr(v.aval, "shape")), default=0)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * out * math.prod(shape[d] for d in contracted)
    if name == "conv_general_dilated":
        kernel, spec = eqn.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        return 2 * out * math.prod(kernel) // kernel[spec[0]]
    if name == "fft":
        length = math.prod(params["fft_lengths"])
        real = 1 if params["fft_type"].name in ("RFFT", "IRFFT") else 2
        batch = math.prod(eqn.invars[0].aval.shape) // max(1, eqn.invars[0].aval.shape[-1])
        return int(real * 2.5 * batch * length * math.log2(max(2, length)))
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    if name in _FREE:
        return 0
    inner = [_count(sub) for value in params.values() for sub in _jaxprs(value)]
    if inner:
        return sum(inner) * params.get("length", 1)
    if name.startswith(("reduce_", "cum", "arg")):
        return math.prod(eqn.invars[0].aval.shape)
    return out


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    return [value] if isinstance(value, Jaxpr) else []


def peak_memory_bytes(compiled: Any) -> int | None:
    """Device memory of a compiled program, from XLA's analysis; None where it gives none."""
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        + stats.temp_size_in_bytes
        - stats.alias_size_in_bytes
    )
