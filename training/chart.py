"""The curves of a training as a picture. Pillow alone."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 800, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 740, 40, 310
"""Of the box that the curves are in, in pixels."""
INK, PALE, SCORE, LOSS = "#1f2933", "#d5dae0", "#0b6e4f", "#b3541e"
STEPS = 4


def curves(scores: Sequence[float | None], losses: Sequence[float | None], title: str = "Accuracy") -> bytes:
    """A PNG: by round from 1, the score (0..1) against the left axis, the loss against the right one; gaps where a value is not finite."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    most = max((loss for loss in losses if _finite(loss)), default=0.0) or 1.0
    for step in range(STEPS + 1):
        part = step / STEPS
        y = BOTTOM - part * (BOTTOM - TOP)
        draw.line([(LEFT, y), (RIGHT, y)], PALE)
        draw.text((LEFT - 8, y), f"{part:.0%}", SCORE, font, "rm")
        draw.text((RIGHT + 8, y), f"{part * most:.3g}", LOSS, font, "lm")
    draw.text((LEFT, TOP - 14), title, SCORE, font, "lb")
    draw.text((RIGHT, TOP - 14), "Loss", LOSS, font, "rb")
    draw.text((LEFT, BOTTOM + 12), "Round 1", INK, font, "lt")
    draw.text((RIGHT, BOTTOM + 12), f"Round {len(scores)}", INK, font, "rt")
    _curve(draw, scores, 1.0, SCORE)
    _curve(draw, losses, most, LOSS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _curve(draw: ImageDraw.ImageDraw, values: Sequence[float | None], most: float, colour: str) -> None:
    step = (RIGHT - LEFT) / max(len(values) - 1, 1)
    before = None
    for number, value in enumerate(values):
        if not _finite(value):
            before = None
            continue
        here = (LEFT + number * step, BOTTOM - min(max(value / most, 0.0), 1.0) * (BOTTOM - TOP))
        if before:
            draw.line([before, here], colour, 2)
        draw.circle(here, 2, colour)
        before = here


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
