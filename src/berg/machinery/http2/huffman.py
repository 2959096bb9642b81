"""HPACK's Huffman code, decoded a byte at a time: each step (where in the code, which byte) is worked out once.

Source: RFC 7541, Appendix B. The code is canonical, so that the lengths say all of it.
"""

from __future__ import annotations

from functools import lru_cache

_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
"""of each byte's code"""
_LONGEST = 30
"""bits of a code; the one that is all ones is the end of a string, and stands nowhere"""
_KEPT_BYTES = 256
"""strings up to this length are remembered"""


class HpackError(ValueError):
    pass


def _codes() -> dict[tuple[int, int], str]:
    """(length, code) → byte. Codes of one length follow each other in the order of the bytes."""
    out: dict[tuple[int, int], str] = {}
    code = length = 0
    for byte in sorted(range(256), key=lambda b: (_LENGTHS[b], b)):
        code <<= _LENGTHS[byte] - length
        length = _LENGTHS[byte]
        out[length, code] = chr(byte)
        code += 1
    return out


_CODES = _codes()


class _Steps(dict[int, tuple[int, str]]):
    """place << 8 | byte → the next place, and what was read. A place is a part of a code; 0 is between codes."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[int, int]] = [(0, 0)]
        self._numbers = {(0, 0): 0}

    def __missing__(self, key: int) -> tuple[int, str]:
        length, code = self.places[key >> 8]
        out = ""
        for shift in range(7, -1, -1):
            code = code << 1 | (key >> shift & 1)
            length += 1
            found = _CODES.get((length, code))
            if found is not None:
                out += found
                code = length = 0
            elif length >= _LONGEST:
                raise HpackError("a Huffman code that is none")
        place = self._numbers.get((length, code))
        if place is None:
            place = self._numbers[length, code] = len(self.places)
            self.places.append((length, code))
        step = self[key] = place, out
        return step


_STEPS = _Steps()


def huffman(data: bytes) -> str:
    """Raises HpackError when the padding is not that of a whole code."""
    return _remembered(data) if len(data) <= _KEPT_BYTES else _decode(data)


def _decode(data: bytes) -> str:
    steps = _STEPS
    place = 0
    out = []
    for byte in data:
        place, piece = steps[place << 8 | byte]
        out.append(piece)
    length, code = steps.places[place]
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("a Huffman code that is cut off")
    return "".join(out)


_remembered = lru_cache(maxsize=1024)(_decode)
