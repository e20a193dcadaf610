"""What reading a table needs: rows of CSV, JSON Lines or Parquet, what its columns mean, and the paths in it."""
