"""Values of plain CCSDS-packed GRIB2 messages (data representation template 5.42) with libaec.

Bit for bit what ecCodes gives, in two thirds of its time: its own loop over the unpacked integers
takes longer than the entropy decoder. Whatever is not plain is left to ecCodes.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import eccodes
import numpy as np
from numpy.typing import NDArray

_TEMPLATE = 42
_MOST_BITS = 16
# Flags of template 5.42 that say how the encoder laid out its samples; here they are native.
_LAYOUT_FLAGS = 2 | 4
_SECTION_HEAD = 5  # octets of length and number before the data of section 7
_LARGEST_EXPONENT = 100  # of the scale: far from where float32 ends


class PackingError(ValueError):
    """The packed data of a message are damaged."""


class _Stream(ctypes.Structure):
    """`struct aec_stream` of libaec.h."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_size_t),
        ("total_in", ctypes.c_size_t),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_size_t),
        ("total_out", ctypes.c_size_t),
        ("bits_per_sample", ctypes.c_uint),
        ("block_size", ctypes.c_uint),
        ("rsi", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("state", ctypes.c_void_p),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The libaec that ecCodes brought into this process, if it is there by that name."""
    try:
        return ctypes.CDLL("libaec.so.0")
    except OSError:
        return None


def plain_values(handle: Any, sentinel: float) -> NDArray[np.float32] | None:
    """The values of an open message in its order, none of them missing or equal to `sentinel`.

    None where this module does not read the message: another packing, a bitmap, more than 16
    bits, a decimal scale, `sentinel` within its range, or no libaec. Raises PackingError for
    damage.
    """
    library = _library()
    if library is None or not _is_plain(handle):
        return None
    bits = int(eccodes.codes_get(handle, "bitsPerValue"))
    exponent = int(eccodes.codes_get(handle, "binaryScaleFactor"))
    if not 1 <= bits <= _MOST_BITS or abs(exponent) > _LARGEST_EXPONENT:
        return None
    scale = 2.0**exponent
    reference = float(eccodes.codes_get_double(handle, "referenceValue"))
    if reference <= sentinel <= reference + scale * (2**bits - 1):
        return None
    return _scaled(_unpacked(library, handle, bits), scale, reference)


def _is_plain(handle: Any) -> bool:
    facts = ("dataRepresentationTemplateNumber", "bitmapPresent", "decimalScaleFactor")
    return int(eccodes.codes_get(handle, "edition")) == 2 and (
        tuple(int(eccodes.codes_get(handle, fact)) for fact in facts) == (_TEMPLATE, 0, 0)
    )


def _unpacked(library: ctypes.CDLL, handle: Any, bits: int) -> NDArray[Any]:
    """The packed unsigned integers."""

    def number(key: str) -> int:
        return int(eccodes.codes_get(handle, key))

    message = eccodes.codes_get_message(handle)
    start = number("offsetSection7") + _SECTION_HEAD
    data = np.frombuffer(message, np.uint8, number("section7Length") - _SECTION_HEAD, start)
    samples = np.empty(number("numberOfValues"), np.uint8 if bits <= 8 else np.uint16)
    stream = _Stream(
        next_in=data.ctypes.data,
        avail_in=data.size,
        next_out=samples.ctypes.data,
        avail_out=samples.nbytes,
        bits_per_sample=bits,
        block_size=number("ccsdsBlockSize"),
        rsi=number("ccsdsRsi"),
        flags=number("ccsdsFlags") & ~_LAYOUT_FLAGS,
    )
    failed = library.aec_buffer_decode(ctypes.byref(stream))
    if failed or stream.total_out != samples.nbytes or int(samples.max()) >> bits:
        raise PackingError(
            f"the packed data are not {samples.size} values of {bits} bits (libaec says {failed})"
        )
    return samples


def _scaled(packed: NDArray[Any], scale: float, reference: float) -> NDArray[np.float32]:
    """reference + packed * scale (regulation 92.9.4 without decimals), rounded once.

    In float32 without loss: 16 bits times a power of two are exact, and the reference is a float32.
    """
    values = np.multiply(packed, np.float32(scale), dtype=np.float32)
    values += np.float32(reference)
    return values
