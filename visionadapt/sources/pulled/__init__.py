"""The manifest that `visionadapt pull` writes: its rows, and their columns in one memory-mapped file."""
