"""The code that carries the payload: 64 bits and a keyed check, convolved, one coded bit a watermark slot.

Legend: S states of the shift register, L steps of the message.
"""

import hashlib
import hmac
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAYLOAD_BITS: Final = 64
CHECK_BITS: Final = 16
MEMORY: Final = 8
STEPS: Final = PAYLOAD_BITS + CHECK_BITS + MEMORY
GENERATORS: Final = (0o473, 0o513, 0o671, 0o765)
"""Rate 1/4, constraint length 9: the maximum-distance polynomials of that length (Proakis, Digital Communications)."""
CODED_BITS: Final = STEPS * len(GENERATORS)
CANDIDATES: Final = 64
"""Messages asked for their check. By chance one in a thousand unreadable pictures so gives a payload that is none."""

_STATES: Final = 1 << MEMORY


def encode(payload: int, key: bytes) -> NDArray[np.float32]:
    """(CODED_BITS,) of -1 and 1: the payload and its check through the convolutional code, ended with zeros."""
    message = _bits(payload, PAYLOAD_BITS) + _bits(_check(payload, key), CHECK_BITS) + [0] * MEMORY
    signs, register = _branch_signs(), 0
    coded = np.empty((STEPS, len(GENERATORS)), np.float32)
    for step, bit in enumerate(message):
        coded[step] = signs[register, bit]
        register = (register >> 1) | (bit << (MEMORY - 1))
    return coded.reshape(-1)


def decode(soft: NDArray[np.float64], key: bytes) -> tuple[int, int | None]:
    """The likeliest payload whose keyed check agrees, and its place among all messages by likelihood, from 0.

    `soft` (CODED_BITS,) holds one correlation a coded bit, positive for 1. The `CANDIDATES` likeliest messages are
    asked for their check; if none of them agrees, the very likeliest comes back, without a place.
    """
    likeliest = None
    messages = _messages(np.asarray(soft, np.float64).reshape(STEPS, len(GENERATORS)))
    for place, bits in enumerate(islice(messages, CANDIDATES)):
        payload, check = _number(bits[:PAYLOAD_BITS]), _number(bits[PAYLOAD_BITS : PAYLOAD_BITS + CHECK_BITS])
        if check == _check(payload, key):
            return payload, place
        likeliest = payload if likeliest is None else likeliest
    assert likeliest is not None  # noqa: S101 - the trellis always holds a path
    return likeliest, None


def _messages(soft_LG: NDArray[np.float64]) -> Iterator[list[int]]:
    """The bits of the paths from state 0 to state 0, best first (Soong and Huang 1991: Viterbi forward, A* backward)."""
    gain_LSB = np.einsum("sbg,lg->lsb", _branch_signs(), soft_LG)
    best_LS = _best_forward(gain_LSB)
    top = _STATES >> 1
    # (minus what the whole path can reach at best, order of arrival, step, state, gained behind it, bits behind it)
    heap: list[tuple[float, int, int, int, float, tuple[int, ...]]] = [(-best_LS[STEPS, 0], 0, STEPS, 0, 0.0, ())]
    arrivals = 0
    while heap:
        _, _, step, state, behind, bits = heappop(heap)
        if step == 0:
            yield list(bits)
            continue
        # the bit that came in is a state's own top bit; its two predecessors differ in the bit that was shifted out
        bit = int(state >= top)
        for shifted in (0, 1):
            before = (state << 1) & (_STATES - 1) | shifted
            gained = behind + float(gain_LSB[step - 1, before, bit])
            reach = float(best_LS[step - 1, before])
            if reach > -np.inf:
                arrivals += 1
                heappush(heap, (-(gained + reach), arrivals, step - 1, before, gained, (bit, *bits)))


def _best_forward(gain_LSB: NDArray[np.float64]) -> NDArray[np.float64]:
    """(STEPS + 1, S): the most that a path from state 0 can gain on its way to each state."""
    states = np.arange(_STATES)
    bit_S = states >> (MEMORY - 1)
    before_S2 = ((states << 1) & (_STATES - 1))[:, None] | np.array([0, 1])
    best_LS = np.full((STEPS + 1, _STATES), -np.inf)
    best_LS[0, 0] = 0.0
    for step in range(STEPS):
        # the message ends with zeros, so that it ends in state 0
        best_LS[step + 1] = (best_LS[step][before_S2] + gain_LSB[step][before_S2, bit_S[:, None]]).max(axis=1)
    return best_LS


def _branch_signs() -> NDArray[np.float32]:
    """(state, bit in, generator) -> -1 or 1: the parity of the register with each polynomial."""
    register_SB = (np.array([0, 1])[None, :] << MEMORY) | np.arange(_STATES)[:, None]
    masked_SBG = register_SB[:, :, None] & np.array(GENERATORS)
    for shift in (8, 4, 2, 1):
        masked_SBG ^= masked_SBG >> shift
    return np.asarray((masked_SBG & 1) * 2 - 1, np.float32)


def _bits(value: int, count: int) -> list[int]:
    return [value >> place & 1 for place in reversed(range(count))]


def _number(bits: list[int]) -> int:
    return int("".join(map(str, bits)), 2)


def _check(payload: int, key: bytes) -> int:
    digest = hmac.new(key, b"check" + payload.to_bytes(PAYLOAD_BITS // 8, "big"), hashlib.sha256).digest()
    return int.from_bytes(digest[: CHECK_BITS // 8], "big")
