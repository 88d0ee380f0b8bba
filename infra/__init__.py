"""The shell around the pipeline: wiring, settings, commands and the devchain."""
