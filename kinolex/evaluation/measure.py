"""The figures of one clip against its reconstruction, the same for tokenizers and codecs."""

from __future__ import annotations

from collections.abc import Sequence

from kinolex import metrics
from kinolex.evaluation.protocol import ReconstructionProtocol
from kinolex.metrics import SqueezeNetFeatures
from kinolex.types import Clip


def measure_pair(
    original: Clip,
    rebuilt: Clip,
    protocol: ReconstructionProtocol,
    features_net: SqueezeNetFeatures | None,
    *,
    chunk_starts: Sequence[int] = (),
) -> dict[str, float]:
    """Every reconstruction metric of one clip.

    Args:
        chunk_starts: frames that open a chunk of the coder, for seam; without any, seam is left out.

    Raises:
        ShapeError: the clips differ in frames or size.
    """
    a_TCHW, b_TCHW = original.frames_TCHW, rebuilt.frames_TCHW
    figures = {
        "psnr_db": metrics.psnr_db(a_TCHW, b_TCHW),
        "psnr_db_frame_mean": metrics.psnr_db_frame_mean(a_TCHW, b_TCHW),
        "ssim": metrics.ssim(a_TCHW, b_TCHW),
        "ms_ssim": metrics.ms_ssim(a_TCHW, b_TCHW),
        "flicker": metrics.flicker(a_TCHW, b_TCHW),
    }
    if chunk_starts:
        figures["seam"] = metrics.seam(a_TCHW, b_TCHW, chunk_starts)
    if features_net is not None:
        figures["squeezenet_distance"] = metrics.squeezenet_distance(
            features_net, a_TCHW, b_TCHW, every_nth=protocol.distance_every_nth
        )
    return figures
