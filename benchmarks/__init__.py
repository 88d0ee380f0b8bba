"""Claims in, recorded figures out: each module measures one claim; `python -m benchmarks`."""
