"""From rows to batches: dividing into training and validation, the order of an epoch, reading and decoding.

Belongs here: what is done with rows before a model sees them. Not here: where rows come from (`sources`).
"""
