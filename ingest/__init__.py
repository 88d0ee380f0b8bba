"""JSON-RPC in, proven segments of columns out."""
