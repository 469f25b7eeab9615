"""One picture of many samples: a row for each expression, with the label and the action units under each."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from synfer_ray.reporting.samples import Sample, survey
from synfer_ray.storage.locations import Location, filesystem, write_bytes
from synfer_ray.storage.shards import read_commits

FILE = "contact_sheet.png"
PAPER, INK, QUIET, ACCENT = "#ffffff", "#1c1c1e", "#6e6e73", "#b3402a"
MARGIN, GAP, GUTTER, LINE = 28, 14, 124, 17


@dataclass(frozen=True)
class Tile:
    """An image with a few short lines under it; `marked` sets the first line in colour."""

    image: Image.Image
    lines: tuple[str, ...] = ()
    marked: bool = False


def contact_sheet(rows: Mapping[str, Sequence[Tile]], title: str = "") -> Image.Image:
    """Draws labelled rows of tiles.

    Small images are enlarged to twice their size, large ones reduced to 192 pixels; all tiles of a sheet are
    squares of one size. Lines that are too long for their tile end in an ellipsis.
    """
    side = min(max(2 * max(tile.image.size) for tiles in rows.values() for tile in tiles), 192)
    columns = max(len(tiles) for tiles in rows.values())
    lines = max(len(tile.lines) for tiles in rows.values() for tile in tiles)
    row_height = side + 6 + lines * LINE + GAP
    top = MARGIN + (44 if title else 0)
    name_font, font = ImageFont.load_default(18), ImageFont.load_default(13)
    gutter = max(GUTTER, *(round(name_font.getlength(name)) + GAP for name in rows))
    width = 2 * MARGIN + gutter + columns * (side + GAP) - GAP
    sheet = Image.new("RGB", (width, top + len(rows) * row_height - GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(22))

    for row, (name, tiles) in enumerate(rows.items()):
        y = top + row * row_height
        draw.text((MARGIN, y + side / 2), name, INK, name_font, anchor="lm")
        for column, tile in enumerate(tiles):
            x = MARGIN + gutter + column * (side + GAP)
            sheet.paste(_square(tile.image, side), (x, y))
            for number, line in enumerate(tile.lines):
                colour = ACCENT if tile.marked and number == 0 else INK if number == 0 else QUIET
                draw.text((x, y + side + 6 + number * LINE), _fit(line, font, side), colour, font)
    return sheet


def write_contact_sheet(output: Location, columns: int = 8) -> str:
    """Draws up to `columns` samples of each expression of a dataset; returns the name of the file.

    Under each: its label, or the one asked for if calibration changed it, with the probability of the label;
    then the strongest action units.
    """
    commits = read_commits(output)
    groups = survey(output, commits, per_expression=columns).groups
    rows = {name: [_tile(sample) for sample in samples] for name, samples in groups.items()}
    fs, root = filesystem(output)
    if rows:
        total = sum(commit.rows for commit in commits)
        buffer = io.BytesIO()
        contact_sheet(rows, f"{total:,} samples").save(buffer, "PNG", optimize=True)
        write_bytes(fs, f"{root}/{FILE}", buffer.getvalue())
    return FILE


def _tile(sample: Sample) -> Tile:
    first = f"asked {sample.assigned}" if sample.changed else sample.label
    if sample.confidence is not None:
        first = f"{first} · {sample.confidence:.2f}"
    units = [f"{name} {value:.1f}" for name, value in sample.strongest]
    image = Image.open(io.BytesIO(sample.image)).convert("RGB")
    lines = (first, "  ".join(units[:2]), "  ".join(units[2:4]))
    return Tile(image, tuple(line for line in lines if line), sample.changed)


def _square(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side, side), "#f2f2f4")
    resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    square.paste(resized, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
