"""Checksums that find truncation and flipped bits and do not depend on the number of ranks."""

from __future__ import annotations

import hashlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)
BLOCK = 16384  # values at a time, so that the temporary arrays stay in the cache


def cell_keys(ids: np.ndarray) -> np.ndarray:
    """An odd 64-bit number for each global cell id, shape (n,) uint64.

    An odd factor keeps every bit of a value visible in the product modulo 2^64.
    Source: finaliser of SplitMix64, Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195.
    """
    keys = np.empty(ids.size, np.uint64)
    for part in _blocks(ids.size):
        bits = ids[part].astype(np.uint64) * GOLDEN + GOLDEN
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        keys[part] = (bits ^ (bits >> np.uint64(31))) | np.uint64(1)
    return keys


def cell_sums(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """This rank's part of the checksum, to be added over ranks modulo 2^64.

    Per component the sum over cells of key times value bits, the upper half folded into the lower.

    Args:
        values: shape (size, n), any type of at most 8 bytes.
        keys: from cell_keys, shape (n,).
    Returns:
        shape (size,) uint64.
    """
    return np.array([_sum(np.ascontiguousarray(row), keys) for row in values], np.uint64)


def _sum(row: np.ndarray, keys: np.ndarray) -> int:
    bits = row.view(f"u{row.dtype.itemsize}")
    total = 0
    for part in _blocks(row.size):
        block = bits[part].astype(np.uint64, copy=False)
        total += int(np.dot(block ^ (block >> HALF), keys[part]))
    return total % 2**64


def _blocks(size: int):
    return (slice(first, first + BLOCK) for first in range(0, size, BLOCK))


def add_over_ranks(comm, sums: np.ndarray) -> np.ndarray:
    """Collective. Parts of checksums added over ranks modulo 2^64."""
    total = np.zeros_like(sums)
    comm.Allreduce(sums, total)
    return total


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and bytes, in hexadecimal."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
