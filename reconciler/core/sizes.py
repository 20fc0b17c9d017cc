"""How big a PVC must be to hold a disk. Pure arithmetic in bytes.

Source: Forklift's formula: round the disk up to 1 MiB; Filesystem volumes divide by (1 - overhead), Block volumes add a fixed overhead.
"""

from __future__ import annotations

import math
from fractions import Fraction

from reconciler.core.target import VolumeMode

MIB = 1 << 20
DEFAULT_OVERHEAD = 0.06  # CDI's own default; used where neither the controller's setting nor CDI says anything


def request_bytes(capacity_bytes: int, mode: VolumeMode, overhead: float | None, block_overhead_bytes: int = 0) -> int:
    """Bytes to ask for. `overhead` is a fraction, 0 <= overhead < 1; None: nobody says. Errors: ValueError, also for no capacity."""
    fraction = DEFAULT_OVERHEAD if overhead is None else overhead
    if capacity_bytes <= 0:
        raise ValueError(f"a disk of {capacity_bytes} bytes cannot be copied")
    if not 0 <= fraction < 1:
        raise ValueError(f"filesystem overhead {fraction} is not a fraction below 1")
    whole = -(-capacity_bytes // MIB) * MIB
    if mode is VolumeMode.BLOCK:
        return whole + block_overhead_bytes
    # By way of the decimal text: as a binary float 0.06 is not exactly 6 %, and the result would be off by a byte now and then.
    return math.ceil(whole / (1 - Fraction(str(fraction))))
