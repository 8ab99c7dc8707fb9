"""Self-contained HTML pages: pictures and charts are inside the file, nothing is fetched, light and dark.

    page("title", [section("heading", table(...), figure(...), note("..."))])  ->  one string of HTML

Every plain string is escaped on its way in; what is HTML already carries the type Html.
"""

from __future__ import annotations

import base64
import html
import io
import math
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kinolex.errors import ShapeError, UsageError

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf8;--ink:#1c1b19;--soft:#6d6a64;--line:#e3dfd8;--card:#fff;--accent:#a84a28;
--bar:#d98a5f}
@media(prefers-color-scheme:dark){:root{--paper:#151516;--ink:#eceae6;--soft:#9a978f;--line:#2e2d2c;--card:#1d1d1e;
--accent:#f0a37d;--bar:#c9744a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:48px 24px 96px}
h1{font-size:2rem;line-height:1.2;letter-spacing:-.02em;margin:0 0 .3em}
.lead{color:var(--soft);margin:0 0 2.5em;max-width:72ch}
section{margin:0 0 3em}
h2{font-size:1.15rem;letter-spacing:-.01em;margin:0 0 .8em;padding-bottom:.4em;border-bottom:1px solid var(--line)}
p{max-width:72ch;margin:0 0 1em}.note{color:var(--soft);font-size:.9rem}
.scroll{overflow-x:auto;margin:0 0 1em;border:1px solid var(--line);border-radius:10px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:10px 14px 0;font-size:.85rem}
th,td{padding:7px 14px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
th{color:var(--soft);font-weight:500}
tbody tr:last-child td{border-bottom:0}
td small{display:block;color:var(--soft);font-size:.78rem}
td.strong{color:var(--accent);font-weight:600}
figure{margin:0 0 1.6em}figcaption{color:var(--soft);font-size:.85rem;margin:0 0 .5em}
.row{display:flex;gap:8px;flex-wrap:wrap;align-items:flex-start}
.row>div{flex:1 1 160px;min-width:0;max-width:420px}
.row img{display:block;width:100%;height:auto;border-radius:6px;background:var(--line)}
.row video,.row audio{display:block;width:100%;border-radius:6px}.row audio{margin-top:6px}
.row span{display:block;color:var(--soft);font-size:.78rem;margin-top:4px}
svg{display:block;max-width:100%;height:auto}
svg text{fill:var(--soft);font:11px ui-sans-serif,system-ui,sans-serif}
svg rect{fill:var(--bar)}svg line{stroke:var(--line)}
pre{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px;
font-size:.82rem}
"""

_CHART_WIDTH, _CHART_HEIGHT, _CHART_MARGIN = 720, 180, 40
_LINES_HEIGHT, _LINES_LEFT, _LINES_RIGHT, _LINES_BOTTOM, _LINES_TOP = 360, 56, 540, 312, 12
_COLOURS = ("#c2552d", "#3d7ea6", "#5b9a5b", "#8e6bb0", "#b08a1e", "#3a968c", "#b5648f", "#808080")
_DASHES = ("", "7 3", "2 3")

Curves = Sequence[tuple[str, Sequence[tuple[float, float]]]]
"""(name, its points from left to right) of every line of a chart."""


class Html(str):
    """Text that is HTML already and is not escaped again."""


@dataclass(frozen=True, slots=True)
class Strong:
    """A table cell that stands out."""

    value: object


def page(title: str, sections: Sequence[str], *, lead: str = "") -> str:
    """A whole document: sections come from section(); lead is one paragraph below the title."""
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        f'<h1>{html.escape(title)}</h1>\n<p class="lead">{_escaped(lead)}</p>\n{body}\n</main></body></html>\n'
    )


def section(heading: str, *parts: str) -> Html:
    """A heading and what stands below it; plain strings become paragraphs."""
    body = "\n".join(part if isinstance(part, Html) else f"<p>{html.escape(part)}</p>" for part in parts)
    return Html(f"<section><h2>{html.escape(heading)}</h2>\n{body}\n</section>")


def note(text: str) -> Html:
    """A paragraph in small print."""
    return Html(f'<p class="note">{_escaped(text)}</p>')


def code(text: str) -> Html:
    """Text as it is, in a fixed-width font."""
    return Html(f"<pre>{html.escape(text)}</pre>")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> Html:
    """A table: the first column is aligned left, the others right.

    Args:
        rows: one cell per header; floats get four significant digits, None is a dash, Strong(x) stands out.
    """
    head = "".join(f"<th>{_escaped(header)}</th>" for header in headers)
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    title = f"<caption>{_escaped(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def figure(pictures: Sequence[tuple[str, ...]], *, caption: str = "") -> Html:
    """Pictures side by side, with a caption above: a label, and above it data URIs of pictures, videos or sounds."""
    cells = "".join(
        f"<div>{''.join(_shown(uri, label) for uri in uris)}<span>{html.escape(label)}</span></div>"
        for label, *uris in pictures
    )
    return Html(f'<figure><figcaption>{_escaped(caption)}</figcaption><div class="row">{cells}</div></figure>')


def _shown(uri: str, label: str) -> str:
    source, named = html.escape(uri), html.escape(label)
    if uri.startswith("data:video/"):
        return f'<video controls loop playsinline preload="metadata" src="{source}" aria-label="{named}"></video>'
    if uri.startswith("data:audio/"):
        return f'<audio controls preload="metadata" src="{source}" aria-label="{named}"></audio>'
    return f'<img src="{source}" alt="{named}">'


def bars(values: Sequence[float], *, caption: str = "", x_label: str = "", top: float | None = None) -> Html:
    """A bar chart as inline SVG.

    Args:
        values: heights, at least 0; hovering a bar shows its place and value.
        top: value at the upper edge; the largest value when not given.
    """
    limit = top or max(values, default=0.0) or 1.0
    left, bottom = _CHART_MARGIN, _CHART_HEIGHT - 28
    step = (_CHART_WIDTH - left) / max(1, len(values))
    drawn = []
    for index, value in enumerate(values):
        height = (bottom - 12) * min(1.0, value / limit)
        drawn.append(
            f'<rect x="{left + index * step:.2f}" y="{bottom - height:.2f}" width="{max(0.5, step * 0.86):.2f}" '
            f'height="{height:.2f}"><title>{index}: {format_number(value)}</title></rect>'
        )
    return Html(
        f"<figure><figcaption>{_escaped(caption)}</figcaption>"
        f'<svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}" role="img" aria-label="{html.escape(caption)}">'
        f'<line x1="{left}" y1="{bottom}" x2="{_CHART_WIDTH}" y2="{bottom}"/>{"".join(drawn)}'
        f'<text x="{left - 6}" y="16" text-anchor="end">{format_number(limit)}</text>'
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{left}" y="{_CHART_HEIGHT - 8}">{html.escape(x_label)}</text></svg></figure>'
    )


def lines(curves: Curves, *, caption: str = "", x_label: str = "", y_label: str = "") -> Html:
    """A chart of curves over a logarithmic x axis as inline SVG; the first curve is drawn thickest.

    Args:
        curves: x above 0; hovering a point shows its values. A curve without points appears in the legend alone.

    Raises:
        UsageError: no curve has a point, or an x is not above 0.
    """
    return Html(
        f"<figure><figcaption>{_escaped(caption)}</figcaption>"
        f"{lines_svg(curves, title=caption, x_label=x_label, y_label=y_label)}</figure>"
    )


def lines_svg(curves: Curves, *, title: str = "", x_label: str = "", y_label: str = "") -> Html:
    """The drawing of lines() alone; svg_file makes a file of it. Arguments and errors as there."""
    points = [point for _, curve in curves for point in curve]
    if not points or min(x for x, _ in points) <= 0:
        raise UsageError("a chart of curves needs at least one point, and every x above 0 for its logarithmic axis")
    x_low, x_high = _widened(*(math.log10(limit([x for x, _ in points])) for limit in (min, max)))
    y_low, y_high = _widened(*(limit([y for _, y in points]) for limit in (min, max)))

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return (
            _LINES_LEFT + right * (_LINES_RIGHT - _LINES_LEFT),
            _LINES_BOTTOM - up * (_LINES_BOTTOM - _LINES_TOP),
        )

    drawn = []
    for tick in _log_ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        drawn.append(f'<line x1="{x:.1f}" y1="{_LINES_TOP}" x2="{x:.1f}" y2="{_LINES_BOTTOM}" stroke="#ddd8d0"/>')
        drawn.append(f'<text x="{x:.1f}" y="{_LINES_BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(y_low, y_high):
        _, y = place(10**x_low, tick)
        drawn.append(f'<line x1="{_LINES_LEFT}" y1="{y:.1f}" x2="{_LINES_RIGHT}" y2="{y:.1f}" stroke="#ddd8d0"/>')
        drawn.append(f'<text x="{_LINES_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number, (name, curve) in enumerate(curves):
        drawn.append(_drawn_curve(number, name, [(*place(x, y), x, y) for x, y in curve]))
    middle = (_LINES_LEFT + _LINES_RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{_LINES_HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>')
    drawn.append(
        f'<text x="14" y="{_LINES_BOTTOM / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_LINES_BOTTOM / 2})">{html.escape(y_label)}</text>'
    )
    return Html(
        f'<svg viewBox="0 0 {_CHART_WIDTH} {_LINES_HEIGHT}" role="img" aria-label="{html.escape(title)}" '
        f'font-family="sans-serif" font-size="11" fill="#6d6a64">{"".join(drawn)}</svg>'
    )


def svg_file(drawing: Html) -> str:
    """The text of an .svg file with a drawing of lines_svg."""
    return drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _drawn_curve(number: int, name: str, points: Sequence[tuple[float, float, float, float]]) -> str:
    """One line with its points and its row of the legend; points are (x, y) on paper and their two values."""
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    style = f'fill="none" stroke="{colour}" stroke-width="{1.5 if number else 3}" stroke-dasharray="{dash}"'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2.5 if number else 3.5}" fill="{colour}"><title>{html.escape(name)}: '
        f"{format_number(x_value)}, {format_number(y_value)}</title></circle>"
        for x, y, x_value, y_value in points
    )
    row, left = _LINES_TOP + 10 + 18 * number, _LINES_RIGHT + 14
    legend = f'<polyline points="{left},{row} {left + 24},{row}" {style}/>'
    text = f'<text x="{left + 30}" y="{row + 4}">{html.escape(name)}</text>'
    return f'<polyline points="{path}" {style}/>{dots}{legend}{text}'


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range with a little room on both sides, and never empty."""
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round values inside a range."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (5, 2, 1) if factor * step <= (high - low) / 4)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten inside a range of logarithms."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def image_data_uri(frame_HWC: Tensor | NDArray[np.uint8]) -> str:
    """A picture as a lossless PNG inside a data URI.

    Raises:
        ShapeError: not uint8 with three axes of which the last is 3.
    """
    pixels_HWC = _pixels(frame_HWC, axes=3)
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = pixels_HWC.shape[:2]  # type: ignore[attr-defined]
    encoder.pix_fmt, encoder.time_base = "rgb24", Fraction(1)  # type: ignore[attr-defined]
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")), *encoder.encode(None)]  # type: ignore[attr-defined]
    return _data_uri("image/png", b"".join(map(bytes, packets)))


def animation_data_uri(frames_THWC: Tensor | NDArray[np.uint8], fps: Fraction, *, quality: int = 85) -> str:
    """Frames as an endlessly playing animated WebP (lossy, quality 0..100) inside a data URI.

    Raises:
        ShapeError: not uint8 with four axes of which the last is 3.
    """
    pixels_THWC = _pixels(frames_THWC, axes=4)
    file = io.BytesIO()
    with av.open(file, "w", format="webp", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=fps, options={"quality": str(quality)})
        stream.height, stream.width = pixels_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels_HWC in pixels_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    return _data_uri("image/webp", file.getvalue())


def file_data_uri(path: str | Path) -> str:
    """A file as it is inside a data URI; its kind is read from its suffix."""
    kind = mimetypes.guess_type(Path(path).name)[0] or "application/octet-stream"
    return _data_uri("audio/wav" if kind == "audio/x-wav" else kind, Path(path).read_bytes())


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all; folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:  # with the name that was asked for, not that of the partial file
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def format_number(value: object) -> str:
    """Four significant digits for floats without exponents where they read well, a dash for None, str for the rest."""
    if value is None:
        return "\u2013"
    if not isinstance(value, float):
        return str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        digits = max(0, 3 - int(np.floor(np.log10(abs(value)))))
        return f"{value:.{digits}f}"
    return f"{value:.3g}"


def _cell(value: object) -> str:
    if isinstance(value, Strong):
        return f'<td class="strong">{_escaped(format_number(value.value))}</td>'
    return f"<td>{value if isinstance(value, Html) else html.escape(format_number(value))}</td>"


def _escaped(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text)


def _data_uri(kind: str, payload: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(payload).decode('ascii')}"


def _pixels(frames: Tensor | NDArray[np.uint8], *, axes: int) -> NDArray[np.uint8]:
    pixels = np.ascontiguousarray(frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames)
    if pixels.dtype != np.uint8 or pixels.ndim != axes or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ShapeError(
            f"a picture needs uint8 with {axes} axes ending in 3 colours, got {pixels.dtype} {pixels.shape}"
        )
    return pixels
