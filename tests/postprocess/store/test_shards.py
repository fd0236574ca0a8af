from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from mosaic_core.contract.errors import StoreError
from postprocess.shards import (
    BLOCK_BYTES,
    COMPRESSION_LEVEL,
    decode_chunk,
    encode_chunk,
    encode_index,
    split_shard,
    with_crc,
    without_crc,
)

SHAPE = (11, 24)


def maps(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(280, 5, (count, *SHAPE)).astype(np.float32)


def shard_of(fields: np.ndarray) -> bytes:
    chunks = [encode_chunk(field) for field in fields]
    return b"".join(chunks) + encode_index([len(chunk) for chunk in chunks])


def test_bytes_equal_those_of_zarr_python(tmp_path: Path) -> None:
    fields = maps(5)
    codec = BloscCodec(
        typesize=4, cname="zstd", clevel=COMPRESSION_LEVEL, shuffle="shuffle", blocksize=BLOCK_BYTES
    )
    array = zarr.create_array(
        tmp_path / "a", shape=fields.shape, shards=fields.shape, chunks=(1, *SHAPE),
        dtype="float32", fill_value=np.nan,
        compressors=[codec, Crc32cCodec()],
    )  # fmt: skip
    array[:] = fields
    assert (tmp_path / "a" / "c" / "0" / "0" / "0").read_bytes() == shard_of(fields)


def test_split_and_decode_give_the_fields_back() -> None:
    fields = maps(3)
    chunks = split_shard(shard_of(fields), 3, "shard")
    assert np.array_equal([decode_chunk(chunk, SHAPE, "c") for chunk in chunks], fields)


def test_any_flipped_bit_is_an_error() -> None:
    shard = shard_of(maps(2))
    for position in np.random.default_rng(2).integers(0, 8 * len(shard), 300):
        damaged = bytearray(shard)
        damaged[position // 8] ^= 1 << (position % 8)
        with pytest.raises(StoreError):
            [decode_chunk(chunk, SHAPE, "x") for chunk in split_shard(bytes(damaged), 2, "x")]


def test_cut_off_content_is_an_error() -> None:
    shard = shard_of(maps(2))
    for size in (0, 3, 20, len(shard) - 1):
        with pytest.raises(StoreError, match="shard"):
            split_shard(shard[:size], 2, "shard")
    with pytest.raises(StoreError, match="checksum"):
        without_crc(with_crc(b"abc")[:-1], "x")
    with pytest.raises(StoreError, match="unpack"):
        decode_chunk(with_crc(b"not blosc at all"), SHAPE, "x")


def test_a_shard_with_a_missing_chunk_is_an_error() -> None:
    missing = np.full((2, 2), 2**64 - 1, dtype="<u8").tobytes()
    with pytest.raises(StoreError, match="lacks"):
        split_shard(with_crc(missing), 2, "x")
