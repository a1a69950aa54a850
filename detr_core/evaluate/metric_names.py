"""Lists the names of the metrics that an evaluation can have. This module imports nothing, so that a profile is read quickly."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve metrics."""

PANOPTIC_METRICS = tuple(f"{name}{suffix}" for name in ("PQ", "SQ", "RQ") for suffix in ("", "_things", "_stuff"))

ALL_METRICS = (*METRICS, *(f"mask/{name}" for name in METRICS), *PANOPTIC_METRICS)
"""All metrics of boxes, of masks and of panoptic quality, by their names in the metrics of a split, such as `val/AP`."""
