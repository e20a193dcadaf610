"""Tables of any kind: rows of CSV, JSON Lines and Parquet files, the file paths in them, and files named repeatedly."""
