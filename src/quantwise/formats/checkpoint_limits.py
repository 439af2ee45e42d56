"""Which matrices a folder of safetensors holds in few bits, by their shapes alone and without torch."""

from __future__ import annotations

from quantwise.core.scheme import Scheme

_WORD = 32
_AWQ_BITS = 4
# Outputs whose codes share a word.
AWQ_OUTPUTS = 8


def stays(scheme: Scheme, rows: int, columns: int) -> str | None:
    """Why a (rows, columns) matrix is left in 16 bit, or None where its codes have a place in the scheme's format."""
    if not scheme.divides(columns):
        return f"rows of {columns} are no multiple of {scheme.group}: left in 16 bit"
    refuses = {"gptq": refuses_gptq, "awq": refuses_awq}.get(scheme.format)
    why = refuses(scheme, rows, columns) if refuses else None
    return why and f"{why}: left in 16 bit"


def packs(count: int, bits: int) -> bool:
    """Whether ``count`` codes of ``bits`` fill whole 32-bit words."""
    return count * bits % _WORD == 0


def refuses_gptq(scheme: Scheme, rows: int, columns: int) -> str | None:
    """Why a (rows, columns) matrix has no place in a GPTQ checkpoint, or None."""
    for what, count in (("outputs", rows), ("inputs", columns)):
        if not packs(count, scheme.bits):
            return f"{count} {what} of {scheme.bits} bits do not fill 32-bit words"
    return None


def refuses_awq(scheme: Scheme, rows: int, columns: int) -> str | None:
    """Why a (rows, columns) matrix has no place in an AWQ checkpoint, or None."""
    if scheme.bits != _AWQ_BITS:
        return f"AWQ checkpoints hold {_AWQ_BITS} bits, not {scheme.bits}"
    return f"{rows} outputs are no multiple of {AWQ_OUTPUTS}" if rows % AWQ_OUTPUTS else None
