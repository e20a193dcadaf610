"""Prediction with a trained classifier: labels, calibrated probabilities, distances, and tables of them.

Belongs here: `Predictor`, its calibration, and files with predictions. Not here: comparison with labels (`evaluation`).
"""
