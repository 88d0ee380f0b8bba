"""Segments and headers in, decoded and reorg-corrected values out; pure functions only."""
