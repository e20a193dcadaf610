"""Classification metrics as pure functions of arrays, and their 95 % intervals.

Belongs here: formulas on NumPy arrays. Not here: running a model, or writing results (`evaluation`).
"""
