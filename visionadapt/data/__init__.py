"""From rows to batches: training and validation splits, epoch order, reading and decoding.

Belongs here: processing of rows before they reach a model. Not here: where rows come from (`sources`).
"""
