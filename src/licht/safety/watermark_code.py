"""The code that carries the payload: 64 bits and a keyed check, convolved, one coded bit a watermark slot.

Legend: S states of the shift register, L steps of the message.
"""

import hashlib
import hmac
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


def decode(soft: NDArray[np.float64], key: bytes) -> tuple[int, NDArray[np.float32], bool]:
    """The most likely payload, its coded bits, and whether the keyed check agrees.

    `soft` (CODED_BITS,) holds one correlation a coded bit, positive for 1. Viterbi's algorithm over 256 states.
    """
    bits = _viterbi(np.asarray(soft, np.float64).reshape(STEPS, len(GENERATORS)))
    payload = int("".join(map(str, bits[:PAYLOAD_BITS])), 2)
    check = int("".join(map(str, bits[PAYLOAD_BITS : PAYLOAD_BITS + CHECK_BITS])), 2)
    return payload, encode(payload, key), check == _check(payload, key)


def _viterbi(soft_LG: NDArray[np.float64]) -> list[int]:
    """The bits of the best path from state 0 to state 0."""
    signs_SBG = _branch_signs()
    states = np.arange(_STATES)
    # a state's two predecessors differ in the bit that was shifted out; the bit that came in is its own top bit
    bit_S = states >> (MEMORY - 1)
    before_S2 = ((states << 1) & (_STATES - 1))[:, None] | np.array([0, 1])
    metric_S = np.full(_STATES, -np.inf)
    metric_S[0] = 0.0
    choice_LS = np.empty((STEPS, _STATES), np.uint8)
    for step in range(STEPS):
        gain_SB = signs_SBG @ soft_LG[step]
        candidates_S2 = metric_S[before_S2] + gain_SB[before_S2, bit_S[:, None]]
        choice_LS[step] = candidates_S2.argmax(axis=1)
        metric_S = candidates_S2.max(axis=1)
    state, bits = 0, []
    for step in reversed(range(STEPS)):
        bits.append(state >> (MEMORY - 1))
        state = ((state << 1) & (_STATES - 1)) | int(choice_LS[step, state])
    return bits[::-1]


def _branch_signs() -> NDArray[np.float32]:
    """(state, bit in, generator) -> -1 or 1: the parity of the register with each polynomial."""
    register_SB = (np.array([0, 1])[None, :] << MEMORY) | np.arange(_STATES)[:, None]
    masked_SBG = register_SB[:, :, None] & np.array(GENERATORS)
    for shift in (8, 4, 2, 1):
        masked_SBG ^= masked_SBG >> shift
    return np.asarray((masked_SBG & 1) * 2 - 1, np.float32)


def _bits(value: int, count: int) -> list[int]:
    return [value >> place & 1 for place in reversed(range(count))]


def _check(payload: int, key: bytes) -> int:
    digest = hmac.new(key, b"check" + payload.to_bytes(PAYLOAD_BITS // 8, "big"), hashlib.sha256).digest()
    return int.from_bytes(digest[: CHECK_BITS // 8], "big")
