"""Tables of any kind: rows of CSV, JSON, Parquet and Arrow files, the images that they name or hold, and messages."""
