"""Segments in, ClickHouse loads, ledger and canon rows out."""
