"""Settings in, a whole cluster on one machine out, without Docker."""
