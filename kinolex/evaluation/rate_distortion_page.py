"""The page of a rate-distortion result: what was found, curves, and two coders side by side at equal bytes."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kinolex.evaluation.page import Curves, Html, Strong, code, lines, note, page, section, table
from kinolex.evaluation.rate_distortion_rows import COUNTINGS, Row
from kinolex.evaluation.rate_distortion_summary import METRICS, mean_curves

COUNTED = {"raw": "coded pictures alone, bits per pixel", "file": "whole file, bits per pixel"}
ORIGINAL = "original"

STAGE = """<style>
.stage{position:relative;max-width:820px;margin:0 0 .6em;background:var(--line);border-radius:6px;overflow:hidden}
.stage img{display:block;width:100%;height:auto}.stage img.over{position:absolute;left:0;top:0}
.stage i{position:absolute;top:0;bottom:0;width:2px;background:#fff;mix-blend-mode:difference}
.controls{display:flex;gap:12px;flex-wrap:wrap;margin:0 0 .8em;font-size:.9rem}.controls select{font:inherit}
.sides{display:flex;justify-content:space-between;max-width:820px;font-size:.85rem;color:var(--soft)}
input[type=range]{width:100%;max-width:820px;margin:.3em 0}
</style>"""

SCRIPT = """<script>
(function(){
const shown=JSON.parse(document.getElementById("pictures").textContent);
const one=id=>document.getElementById(id),kept={};
const fill=(id,values,wish)=>{const box=one(id),old=wish||box.value;box.replaceChildren();
 for(const value of values){const option=document.createElement("option");option.textContent=value;box.append(option)}
 box.value=values.includes(old)?old:values[0]};
const distinct=list=>[...new Set(list)];
const chosen=()=>shown.filter(s=>s.clip===one("clip").value);
function limits(){fill("limit",distinct(chosen().map(s=>s.limit).filter(l=>l)));coders()}
function coders(){const list=chosen().filter(s=>!s.limit||s.limit===one("limit").value).map(s=>s.coder);
 fill("a",list,kept.a||list[1]);fill("b",list,kept.b||list[2]||list[0]);draw()}
function draw(){for(const side of["a","b"]){
 const s=chosen().find(s=>s.coder===one(side).value&&(!s.limit||s.limit===one("limit").value));
 one("picture-"+side).src=s.uri;one("text-"+side).textContent=s.text}slide()}
function slide(){const at=one("slide").value;one("picture-a").style.clipPath="inset(0 "+(100-at)+"% 0 0)";
 one("edge").style.left=at+"%"}
fill("clip",distinct(shown.map(s=>s.clip)));limits();
one("clip").onchange=limits;one("limit").onchange=coders;one("slide").oninput=slide;
for(const side of["a","b"])one(side).onchange=()=>{kept[side]=one(side).value;draw()};
})();
</script>"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture to compare."""

    clip: str
    coder: str
    limit: str
    """In words; empty for the original, which stands beside every limit."""
    text: str
    uri: str


def rate_distortion_page(result: dict[str, Any], shown: Sequence[Shown]) -> str:
    """HTML of a result of evaluate_rate_distortion."""
    protocol, measured = result["protocol"], result["measured"]
    frames = f"first {protocol['max_frames']} frames" if protocol["max_frames"] else "all frames"
    lead = (
        f"{result['n']} clips ({', '.join(protocol['sets'])}; split {protocol['split']} where a set has one), {frames} "
        f"at {protocol['lines']} lines. Protocol {result['protocol_hash']}, commit {result['commit'][:12]}, "
        f"{result['date']}."
    )
    clips = len({picture.clip for picture in shown})
    side = note(f"The middle frame of the first {clips} of {result['n']} clips. {_help(measured)}")
    sections = [
        section("At matched bytes", _matched_table(result), _matched_note(result)),
        section("Side by side", side, comparison(shown)) if shown else "",
        section("Curves", *(Html(chart) for chart in charts(result)), note(_CURVES_NOTE)),
        section("BD-rate", *(_bd_table(result, counting) for counting in COUNTINGS), note(_BD_NOTE)),
        section("More bytes, less quality", _falls_table(result)),
        section("How this was measured", code(json.dumps(_origin(result), indent=1))),
    ]
    return page(f"Rate and distortion: {result['name']}", sections, lead=lead)


def chart_curves(result: dict[str, Any], counting: str, metric: str) -> Curves:
    """Mean curves of all coders, ours first."""
    return list(mean_curves(result["points"], counting, metric).items())


def charts(result: dict[str, Any]) -> list[Html]:
    """One chart per metric and counting, as parts of a page."""
    metrics = [metric for metric in METRICS if metric in result["quality_scales"]]
    return [
        lines(chart_curves(result, counting, metric), caption=metric, x_label=COUNTED[counting], y_label=metric)
        for metric in metrics
        for counting in COUNTINGS
    ]


def picture_text(row: Row) -> str:
    """What stands below a picture."""
    distance = f", distance {row['squeezenet_distance']:.3f}" if "squeezenet_distance" in row else ""
    over = ", more bytes than asked" if row.get("over_target") else ""
    size = f"{row[row['counting'] + '_bytes']} bytes{over}"
    return f"{row['coder']}, {row['setting']} {row['level']:g}: {size}, {row['psnr_db']:.2f} dB{distance}"


def comparison(shown: Sequence[Shown]) -> Html:
    """Two pictures over each other with a slider, and choices of clip, limit and both coders."""
    pictures = [
        {"clip": one.clip, "coder": one.coder, "limit": one.limit, "text": one.text, "uri": one.uri} for one in shown
    ]
    # Inside a script element only "</" could end it.
    data = json.dumps(pictures).replace("<", "\\u003c")
    choices = "".join(
        f'<label>{html.escape(label)} <select id="{name}"></select></label>'
        for name, label in (("clip", "clip"), ("limit", "bytes"), ("a", "left"), ("b", "right"))
    )
    return Html(
        f'{STAGE}<div class="controls">{choices}</div>'
        '<div class="stage"><img id="picture-b" alt="right"><img id="picture-a" class="over" alt="left">'
        '<i id="edge"></i></div><input id="slide" type="range" min="0" max="100" value="50" aria-label="edge">'
        '<div class="sides"><span id="text-a"></span><span id="text-b"></span></div>'
        "<noscript><p>Choosing two coders needs JavaScript; nothing is fetched.</p></noscript>"
        f'<script type="application/json" id="pictures">{data}</script>{SCRIPT}'
    )


def _matched_table(result: dict[str, Any]) -> Html:
    headers = ["bits per pixel of ours", "counted", "clips", "distance, ratio to the best", "at most 0.7", "PSNR, dB"]
    rows = []
    for figure in result["matched"].values():
        share = figure["clips_that_reach_the_aim"]
        ratio, gain = figure["distance_ratio"], figure["psnr_db_gain"]
        rows.append(
            [
                f"at most {figure['limit_bpp']:g}",
                figure["counting"],
                gain["n"],
                _mean(ratio, strong=ratio["mean"] is not None and ratio["mean"] <= figure["aim"]),
                None if share is None else f"{share:.0%}",
                _mean(gain, sign="+"),
            ]
        )
    return table(headers, rows, caption="mean over clips and its 95 % bootstrap interval")


def _matched_note(result: dict[str, Any]) -> Html:
    rivals = ", ".join(result["measured"]["rivals"])
    left_out = max((figure["psnr_db_gain"]["without"] for figure in result["matched"].values()), default=0)
    return note(
        f"Ours at its best picture within the limit, beside {rivals}, each at its best within the bytes that ours took "
        "on that clip. The ratio is to the least distance of them, below 1 ours looks closer to the original; PSNR is "
        f"ours less that of the same coder. Where ours or all others cannot be so small the clip is left out: at most "
        f"{left_out} clips."
    )


def _bd_table(result: dict[str, Any], counting: str) -> Html:
    by_coder = result["bd_rate_percent"][counting]
    metrics = list(result["quality_scales"])
    rows = [[coder, *(_bd_cell(figures[metric]) for metric in metrics)] for coder, figures in by_coder.items()]
    return table(["ours against", *metrics], rows, caption=f"BD-rate, median over clips; {COUNTED[counting]}")


def _bd_cell(figure: dict[str, Any]) -> Html | None:
    without = f"; {figure['without']} without overlap" if figure["without"] else ""
    if figure["median"] is None:
        return Html(f"\u2013<small>{figure['without']} without overlap</small>")
    return Html(f"{figure['median']:+.0f} %<small>mean {figure['mean']:+.0f} %, {figure['n']} clips{without}</small>")


def _falls_table(result: dict[str, Any]) -> Html:
    metrics = list(result["quality_scales"])
    rows = [
        [
            coder,
            *(
                Html(
                    f"{figures[metric]['clips_without_fall']:.1%}"
                    f"<small>{figures[metric]['pairs_that_fall']:.1%} of steps</small>"
                )
                for metric in metrics
            ),
        ]
        for coder, figures in result["falls"].items()
    ]
    return table(["", *metrics], rows, caption="clips on which no point with more bytes is worse, and steps that fall")


def _mean(figure: dict[str, Any], *, sign: str = "", strong: bool = False) -> Html | Strong | None:
    if figure["mean"] is None:
        return None
    if strong:
        return Strong(f"{figure['mean']:{sign}.3f}")
    mean, low, high = (f"{figure[key]:{sign}.3f}" for key in ("mean", "low", "high"))
    return Html(f"{mean}<small>{low} to {high}, median {figure['median']:{sign}.3f}</small>")


_CURVES_NOTE = (
    "Each point is the mean over all clips at one setting. raw: packets or token payloads; file: MP4, AVIF, .klx as "
    "they lie on a disk. squeezenet_distance: 0 is equal, about 0.9 unrelated."
)
_BD_NOTE = (
    "How many percent more bytes ours needs for the same quality (negative: fewer), between the best and the worst "
    "quality that both reach; interpolated by PCHIP over the logarithm of the bytes. MS-SSIM enters as "
    "-10 log10(1 - x), squeezenet_distance as its negative logarithm."
)


def _help(measured: dict[str, Any]) -> str:
    limits = " or ".join(f"{limit:g}" for limit in measured["limits_bpp"])
    return f"Ours within {limits} bits per pixel, the others within the bytes of ours, coded pictures alone."


def _origin(result: dict[str, Any]) -> dict[str, Any]:
    keys = ("command", "commit", "date", "hardware", "protocol", "measured", "interpolation", "quality_scales")
    return {key: result[key] for key in keys}
