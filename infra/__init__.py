"""The shell around the pipeline: wiring, settings, commands and the devchain.

Its other modules load what takes most of a start, so what makes loading dear is turned off here.
"""

import gc
import os

YOUNG_OBJECTS, YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS = 20_000, 20, 50
"""Thresholds of the garbage collector: code and columns make few cycles, payloads many objects."""

gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS)
# clickhouse-driver makes a table of every day from 1900 to 2299 otherwise, a tenth of a start.
os.environ.setdefault("CLICKHOUSE_DRIVER_LASY_DATE_LUT", "on")
