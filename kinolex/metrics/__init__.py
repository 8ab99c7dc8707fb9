"""Tensors -> one number with its unit."""

from kinolex.metrics.fidelity import PSNR_CAP_DB, psnr_db, psnr_db_frame_mean
from kinolex.metrics.perceptual import SqueezeNetFeatures, perceptual_distance_B, squeezenet_distance

__all__ = [
    "PSNR_CAP_DB",
    "SqueezeNetFeatures",
    "perceptual_distance_B",
    "psnr_db",
    "psnr_db_frame_mean",
    "squeezenet_distance",
]
