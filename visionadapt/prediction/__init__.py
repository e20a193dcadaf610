"""`Predictor`: images in, calibrated probabilities out, one image or millions of rows.

Belongs here: calibration, distance, tables of predictions. Not here: figures that need true labels (`evaluation`).
"""
