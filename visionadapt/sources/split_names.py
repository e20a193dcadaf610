"""The names that a part of a data set goes by: train, val and test."""

from __future__ import annotations

SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
