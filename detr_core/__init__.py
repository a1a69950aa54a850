"""DETR (End-to-End Object Detection with Transformers, arXiv 2005.12872): data, model, loss, training, evaluation,
studies and figures. Knows no orchestrator, no tracker and no path of its own: callers hand in folders and settings."""
