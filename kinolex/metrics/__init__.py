"""Tensors -> one number with its unit. Names carry unit and backbone; nothing returns NaN or infinity."""

from kinolex.metrics.codebook import (
    codebook_perplexity,
    codebook_reach,
    codebook_reach_of_uniform,
    codebook_usage,
    digit_entropies_bits,
    ranked_counts,
    usage_histogram,
)
from kinolex.metrics.distribution import (
    Distance,
    FewSamplesWarning,
    distance,
    features_of,
    frechet_distance,
    kernel_distance,
    squeezenet_features,
    torchscript_features,
)
from kinolex.metrics.fidelity import PSNR_CAP_DB, flicker, psnr_db, psnr_db_frame_mean, seam
from kinolex.metrics.perceptual import SqueezeNetFeatures, perceptual_distance_B, squeezenet_distance
from kinolex.metrics.rate import bits_per_pixel, raw_bits_per_pixel, raw_token_bytes
from kinolex.metrics.structure import ms_ssim, ms_ssim_loss_B, num_scales, ssim
from kinolex.metrics.sync import Sync, Watched, matches, shuffled, sync

__all__ = [
    "PSNR_CAP_DB",
    "Distance",
    "FewSamplesWarning",
    "SqueezeNetFeatures",
    "Sync",
    "Watched",
    "bits_per_pixel",
    "codebook_perplexity",
    "codebook_reach",
    "codebook_reach_of_uniform",
    "codebook_usage",
    "digit_entropies_bits",
    "distance",
    "features_of",
    "flicker",
    "frechet_distance",
    "kernel_distance",
    "matches",
    "ms_ssim",
    "ms_ssim_loss_B",
    "num_scales",
    "perceptual_distance_B",
    "psnr_db",
    "psnr_db_frame_mean",
    "ranked_counts",
    "raw_bits_per_pixel",
    "raw_token_bytes",
    "seam",
    "shuffled",
    "squeezenet_distance",
    "squeezenet_features",
    "ssim",
    "sync",
    "torchscript_features",
    "usage_histogram",
]
