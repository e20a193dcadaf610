"""Training adapter layers and a head on features: `fit`, the optimiser, epochs, and the baselines to beat.

Belongs here: steps, epochs, losses over time. Not here: run folders and the command line.
"""
