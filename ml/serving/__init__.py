"""The published tables where BI tools live, other than files."""
