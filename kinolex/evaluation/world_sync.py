"""Sync of picture and sound in clips of worlds, measured without a judge network.

clip --worlds.measure--> impacts seen, onsets heard --metrics.sync--> offsets, hits, false events, pitch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kinolex.data.worlds import World, measure
from kinolex.errors import UsageError
from kinolex.media.opus import decode_opus, encode_opus
from kinolex.metrics.sync import Watched, shuffled, sync
from kinolex.types import Clip

OPUS_KBPS = 12.0
SILENT = ("orbit", "grow")
"""Actions without an impact."""


def watched(clip: Clip) -> Watched:
    """What is seen and heard in a clip.

    Raises:
        UsageError: the clip has no sound.
    """
    if clip.sound is None:
        raise UsageError("sync of picture and sound needs a clip with sound, got one without")
    found = measure(clip)
    return Watched(found.impacts, found.onsets, (len(clip.frames_TCHW) - 1) / float(clip.fps))


def sync_scores(clips: Sequence[Watched], labels: Sequence[str]) -> dict[str, Any]:
    """Sync of all clips, the control with shuffled sound, and how often silent actions show or sound an event.

    Args:
        clips: by watched.
        labels: the action of each; clips of silent actions are left out of the sync, which they would only flatter.

    Raises:
        UsageError: fewer than two clips of actions with impacts.
    """
    striking = [clip for clip, label in zip(clips, labels, strict=True) if label not in SILENT]
    silent = [clip for clip, label in zip(clips, labels, strict=True) if label in SILENT]
    return {
        "sync": sync(striking).as_json(),
        "shuffled sound": sync(shuffled(striking)).as_json(),
        "silent worlds": {
            "count": len(silent),
            "with an impact seen": sum(bool(clip.seen) for clip in silent),
            "with an onset heard": sum(bool(clip.heard) for clip in silent),
        },
    }


def events_against_truth(worlds: Sequence[World], clips: Sequence[Watched]) -> dict[str, Any]:
    """How well each side alone finds the events of worlds: seen and heard, against the times drawn."""
    ends = [(len(world.clip.frames_TCHW) - 1) / float(world.clip.fps) for world in worlds]
    sides = {
        "seen": [clip.seen for clip in clips],
        "heard": [clip.heard for clip in clips],
    }
    return {
        side: sync(
            [Watched(world.events, found, end) for world, found, end in zip(worlds, each, ends, strict=True)]
        ).as_json()
        for side, each in sides.items()
    }


def through_opus(clip: Clip, *, kbps: float = OPUS_KBPS) -> Clip:
    """The clip with its sound coded, as a stand-in for a sound tokenizer."""
    assert clip.sound is not None
    coded = encode_opus(clip.sound, kbps=kbps)
    return replace(clip, sound=decode_opus(coded.head, coded.packets, coded.num_samples))
