"""How .klx files stand beside classical codecs: measured rows, what they say, charts and a page.

measure_rows --> summarise_comparison --> {name}.json, {name}.html, {name}_{metric}_{counting}.svg
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einops import rearrange

from kinolex.codec.priors import Prior
from kinolex.data.index import Entry
from kinolex.evaluation.codecs import CODECS, VERYSLOW, CodecConfig
from kinolex.evaluation.coders import QUALITIES, klx_coder, still_coders, video_coders
from kinolex.evaluation.page import image_data_uri, lines_svg, svg_file, write_text
from kinolex.evaluation.protocol import ReconstructionProtocol, read_entry, write_result
from kinolex.evaluation.rate_distortion_page import (
    COUNTED,
    ORIGINAL,
    Shown,
    chart_curves,
    picture_text,
    rate_distortion_page,
)
from kinolex.evaluation.rate_distortion_rows import (
    COUNTINGS,
    LIMITS_BPP,
    Comparison,
    OnRow,
    Row,
    choose_entries,
    how_measured,
    measure_rows,
)
from kinolex.evaluation.rate_distortion_summary import summarise_comparison
from kinolex.evaluation.row_store import RowStore
from kinolex.evaluation.vmaf import find_vmaf
from kinolex.tokenizers.video import VideoTokenizer
from kinolex.types import Clip

IMAGE_LIMITS_BPP = (0.25, 0.5)
"""Single pictures have nothing to predict from: JPEG does not go below 0.3 bits per pixel."""
IMAGE_LINES = 256
MAX_PICTURE_CHARACTERS = 14_000_000
"""Of a page, all pictures together; later clips are left out of the side-by-side view."""
MAX_SHOWN_CLIPS = 8
"""Likewise: each is coded again by every coder at every limit."""
ROWS_FILE = "rate_distortion_rows.jsonl"
FEATURES = Path("perceptual") / "squeezenet_v1_0_imagenet.safetensors"
"""Weights of the perceptual backbone below the data folder; without them squeezenet_distance is not measured."""


def evaluate_rate_distortion(
    comparison: Comparison,
    entries: Sequence[Entry],
    protocol: ReconstructionProtocol,
    store: RowStore,
    *,
    name: str,
    features_path: str | Path | None = None,
    out_dir: str | Path | None = None,
    missing: dict[str, str] | None = None,
    cut: str = "",
    command: str | None = None,
    on_row: OnRow = lambda _done, _total, _row: None,
) -> dict[str, Any]:
    """Measure ours and the others on every clip and say how they compare.

    Args:
        comparison: with `ours`.
        store: rows measured before; new ones are put there as they come.
        features_path: weights of the perceptual backbone; without, squeezenet_distance is not measured.
        out_dir: gets {name}.json, {name}.html and one SVG per metric and counting; None writes nothing.
        missing: coders that were wanted and cannot be measured here, and why.
        cut: how ours was cut into chunks, in words.

    Returns:
        The result of rate_distortion_summary.summarise_comparison, with `measured` added.

    Raises:
        CheckpointError: features_path. Others as rate_distortion_rows.measure_rows.
    """
    protocol, features_net = protocol.with_features(features_path)
    vmaf, vmaf_note = find_vmaf()
    rows = measure_rows(comparison, entries, protocol, features_net, store, vmaf=vmaf, on_row=on_row)
    result = summarise_comparison(name, comparison, rows, protocol, command)
    result["measured"] = how_measured(
        comparison, missing=missing or {}, vmaf=vmaf_note, sound="left out", chunks_of_ours=cut
    )
    if out_dir is not None:
        write_result(Path(out_dir) / f"{name}.json", result)
        for metric in result["quality_scales"]:
            for counting in COUNTINGS:
                drawing = lines_svg(
                    chart_curves(result, counting, metric), title=name, x_label=COUNTED[counting], y_label=metric
                )
                write_text(Path(out_dir) / f"{name}_{metric}_{counting}.svg", svg_file(drawing))
        shown = pictures(comparison, entries, protocol, rows)
        write_text(Path(out_dir) / f"{name}.html", rate_distortion_page(result, shown))
    return result


@dataclass(frozen=True, slots=True)
class KlxEvaluation:
    """What `kinolex eval rate-distortion` measures."""

    sets: tuple[str, ...]
    """Of videos; `test` is measured where a set names splits, otherwise everything."""
    image_sets: tuple[str, ...]
    """Of single pictures, at 256 lines, beside JPEG, WebP and AVIF too."""
    lines: int = 128
    """Short side of the videos."""
    max_frames: int | None = 65
    qualities: tuple[float, ...] = QUALITIES
    chunk_frames: int | None = None
    """Frames of ours that are coded together; None takes the whole clip, as the codecs may."""
    codecs: tuple[CodecConfig, ...] = (*CODECS, *VERYSLOW)
    limits_bpp: tuple[float, ...] = LIMITS_BPP


def evaluate_klx(
    tokenizer: VideoTokenizer,
    prior: Prior,
    folder: str | Path,
    out_dir: str | Path,
    plan: KlxEvaluation,
    *,
    name: str,
    command: str | None = None,
    reuse: Sequence[str | Path] = (),
    on_points: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> list[dict[str, Any]]:
    """Measure a model's .klx files beside classical codecs: one result for videos and one for pictures.

    Args:
        prior: of the tokenizer, see hub.load_prior.
        folder: holds one sub-folder per set, and perceptual/ with the weights for squeezenet_distance.
        out_dir: gets results, pages, charts, and every row as soon as it is measured: call again to go on.
        name: of the model.
        command: that the results name; the running one if None.
        reuse: row files or results of earlier runs, whose rows are taken where they fit.
        on_points: (points finished, points in all), for videos and then anew for pictures.

    Returns:
        Results of evaluate_rate_distortion, rate_distortion_{name} and rate_distortion_{name}_images.

    Raises:
        As evaluate_rate_distortion; MissingFile: a set is not in the folder; DataError: nothing to measure or reuse.
        UsageError: qualities out of order or range.
    """
    qualities = tuple(map(float, plan.qualities))
    ours = klx_coder(tokenizer, prior, name, qualities=qualities, chunk_frames=plan.chunk_frames)
    others, (stills, missing) = video_coders(plan.codecs), still_coders()
    rivals = tuple(codec.title for codec in plan.codecs if codec not in VERYSLOW)
    features = Path(folder) / FEATURES
    jobs: list[tuple[str, Comparison, ReconstructionProtocol]] = []
    if plan.sets:
        protocol = ReconstructionProtocol(sets=plan.sets, lines=plan.lines, max_frames=plan.max_frames)
        comparison = Comparison(ours=ours, others=others, rivals=rivals, limits_bpp=plan.limits_bpp)
        jobs.append((f"rate_distortion_{name}", comparison, protocol))
    if plan.image_sets:
        protocol = ReconstructionProtocol(sets=plan.image_sets, lines=IMAGE_LINES, max_frames=1)
        rivals = (*rivals, *(coder.name for coder in stills))
        comparison = Comparison(ours=ours, others=[*others, *stills], rivals=rivals, limits_bpp=IMAGE_LIMITS_BPP)
        jobs.append((f"rate_distortion_{name}_images", comparison, protocol))
    store, results = RowStore(Path(out_dir) / ROWS_FILE, reuse), []
    # Every set is looked for before the first is measured.
    for (title, comparison, protocol), entries in [(job, choose_entries(folder, job[2])) for job in jobs]:
        result = evaluate_rate_distortion(
            comparison,
            entries,
            protocol,
            store,
            name=title,
            features_path=features if features.is_file() else None,
            out_dir=out_dir,
            missing=missing if title.endswith("_images") else {},
            cut="one chunk per clip" if plan.chunk_frames is None else f"chunks of {plan.chunk_frames} frames",
            command=command,
            on_row=lambda done, total, _row: on_points(done, total),
        )
        results.append(result)
    return results


def pictures(
    comparison: Comparison, entries: Sequence[Entry], protocol: ReconstructionProtocol, rows: Sequence[Row]
) -> list[Shown]:
    """The middle frame of the first clips, original and coded at matched raw bytes, as far as a page may grow."""
    coders = {coder.name: coder for coder in comparison.coders}
    shown: list[Shown] = []
    for entry in entries:
        wanted = [row for row in rows if (row["name"], row.get("counting")) == (entry.name, "raw")]
        if not wanted:
            continue
        if len({one.clip for one in shown}) == MAX_SHOWN_CLIPS:
            break
        clip = read_entry(entry, protocol)
        middle = clip.num_frames // 2
        ours = [Shown(entry.name, ORIGINAL, "", ORIGINAL, _uri(clip, middle))]
        for row in wanted:
            rebuilt = coders[row["coder"]].code(clip, row["level"]).rebuild()
            limit = f"at most {row['limit_bpp']:g} bits per pixel"
            ours.append(Shown(entry.name, row["coder"], limit, picture_text(row), _uri(rebuilt, middle)))
        if sum(len(one.uri) for one in (*shown, *ours)) > MAX_PICTURE_CHARACTERS:
            break
        shown += ours
    return shown


def _uri(clip: Clip, frame: int) -> str:
    return image_data_uri(rearrange(clip.frames_TCHW[frame], "c h w -> h w c"))
