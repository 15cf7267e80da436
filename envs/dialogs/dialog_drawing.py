"""How a dialog looks: its last utterances as bubbles, beside them what the system has understood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from policylab.envs.grids.sprites import INK, WHITE, Colour

WIDTH, HEIGHT = 640, 400
_OVERSAMPLING = 2
_N_LINES = 10
_LINE_PX = 38
_SPLIT = 440
"""Where the bubbles end and the slots begin, pixels."""
_COLOURS: dict[str, Colour] = {"system": (214, 229, 247), "user": (226, 240, 214)}
_FAINT: Colour = (150, 150, 150)
_GRID: Colour = (222, 217, 205)
_GREEN: Colour = (60, 150, 80)


def dialog_picture(lines: Sequence[tuple[str, str]], *, slots: Sequence[tuple[str, str, bool]]) -> NDArray[np.uint8]:
    """Return a dialog as an image, shape (400, 640, 3).

    Args:
        lines: (``"system"`` or ``"user"``, text), oldest first; the last ten are shown.
        slots: (name, value understood, whether it is confirmed).
    """
    image = Image.new("RGB", (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING), WHITE)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=13 * _OVERSAMPLING)
    for i, (who, text) in enumerate(lines[-_N_LINES:]):
        _bubble(pen, text, who=who, top=10 + i * _LINE_PX, font=font)
    scale = _OVERSAMPLING
    pen.line((_SPLIT * scale, 0, _SPLIT * scale, HEIGHT * scale), fill=_GRID, width=scale)
    pen.text(((_SPLIT + 16) * scale, 14 * scale), "understood", font=font, fill=_FAINT)
    for i, (name, value, confirmed) in enumerate(slots):
        y = (48 + i * 34) * scale
        pen.text(((_SPLIT + 16) * scale, y), name, font=font, fill=INK)
        colour = _FAINT if value == "?" else _GREEN if confirmed else INK
        pen.text(((_SPLIT + 82) * scale, y), value, font=font, fill=colour)
        if confirmed:
            pen.text(((WIDTH - 10) * scale, y), "sure", font=font, fill=_GREEN, anchor="ra")
    return np.asarray(image.reduce(_OVERSAMPLING), dtype=np.uint8).copy()


def _bubble(
    pen: ImageDraw.ImageDraw, text: str, *, who: str, top: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    scale = _OVERSAMPLING
    room = (_SPLIT - 40) * scale
    while pen.textlength(text, font=font) > room:
        text = text[:-2].rstrip(" .") + "…"
    width = pen.textlength(text, font=font) + 20 * scale
    left = 10 * scale if who == "system" else (_SPLIT - 10) * scale - width
    box = (left, top * scale, left + width, (top + _LINE_PX - 8) * scale)
    pen.rounded_rectangle(box, radius=9 * scale, fill=_COLOURS[who])
    pen.text((left + 10 * scale, (top + (_LINE_PX - 8) / 2) * scale), text, font=font, fill=INK, anchor="lm")
