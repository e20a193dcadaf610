"""What a manifest frozen by `visionadapt pull` is made of: its rows, and their columns in one mapped file."""
