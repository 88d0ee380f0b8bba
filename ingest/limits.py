"""Every wait and every size of ingest, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Bounds of the network side; the settings file overrides each by its name."""

    response_bytes_max: int = 128 * 1024 * 1024
    """Bytes of one HTTP answer, after decompression."""
    batch_calls_max: int = 40
    """JSON-RPC calls in one HTTP request, at most; an endpoint may lower its own."""
    in_flight_bytes_max: int = 192 * 1024 * 1024
    """Bytes of answers that are being fetched, verified or waiting for their turn."""
    window_segments_max: int = 64
    """Segments between the oldest that is not yet yielded and the newest being fetched."""
    request_timeout_seconds: float = 30.0
    """One HTTP request, from the first byte out to the last byte in."""
    connect_timeout_seconds: float = 10.0
    """TCP and TLS."""
    retry_attempts_max: int = 10
    """Attempts for one segment, block or call over all endpoints before a coded error."""
    backoff_seconds_min: float = 0.1
    """First step of the full-jitter backoff."""
    backoff_seconds_max: float = 20.0
    """Its last step."""
    concurrency_start: int = 4
    """Requests in flight to one endpoint at the start."""
    concurrency_max: int = 16
    """Requests in flight to one endpoint, at most."""
    retry_after_seconds_max: float = 120.0
    """A longer Retry-After is cut to this."""
    hedge_after_seconds: float = 5.0
    """When a request is this old and another endpoint is idle, it is asked too."""
    quarantine_seconds: float = 600.0
    """How long an endpoint that lied is not asked; doubled at each further lie."""
    quarantine_seconds_max: float = 86_400.0
    """The longest quarantine."""
    head_poll_seconds_min: float = 0.2
    """Shortest time between two polls of the head."""
    head_poll_seconds_max: float = 5.0
    """Longest time between two polls of the head while no WebSocket tells it."""
    head_watchdog_seconds: float = 15.0
    """Polls of the head while a WebSocket tells it: catches one that has fallen silent."""
    finality_poll_seconds_min: float = 1.0
    """Shortest time between two polls of `safe` and `finalized`."""
    head_bodies_in_flight_max: int = 8
    """Requests for block bodies of the head in flight."""
    head_blocks_per_request_max: int = 10
    """Blocks of one such request while catching up."""
    head_walk_blocks_max: int = 20_000
    """How far parents are walked back before the branch is given up and reported."""
    head_bridge_blocks_max: int = 500_000
    """Headers that an ingester fetches to connect the head lane after it was away."""
    head_silent_seconds: float = 60.0
    """After so long without any head a coded warning is logged and shown."""
    head_repeat_seconds: float = 3.0
    """A request of the head lane that has no answer after so long is sent again."""
    final_denied_polls: int = 2
    """Polls in a row that find another block in place of our final one before that counts."""
    final_absent_seconds: float = 60.0
    """How long a head may be below our final block before the node counts as gone back."""
    rollback_polls: int = 3
    """Polls in a row that must name the same lower head before it is believed."""
    websocket_retry_seconds: float = 30.0
    """Time before a WebSocket that failed is tried again."""
    websocket_bytes_max: int = 4 * 1024 * 1024
    """Bytes of one WebSocket frame."""
    clock_skew_seconds_max: float = 300.0
    """Difference of clock and latest block that is warned about."""
    logs_range_blocks_max: int = 2_000
    """Blocks of one eth_getLogs request, at most; an endpoint may lower its own."""
