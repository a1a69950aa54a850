"""This package implements DETR (End-to-End Object Detection with Transformers, arXiv 2005.12872): data, models, losses,
training, evaluation, studies and plots. It imports no orchestrator and no experiment tracker, and it holds no paths: callers
pass folders and settings."""
