"""A data directory in, a running ClickHouse server out."""
