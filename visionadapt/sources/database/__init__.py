"""What reading from an SQL database needs: its address, read-only connections, bound queries, keys, image columns."""
