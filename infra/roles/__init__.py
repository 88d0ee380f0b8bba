"""Settings in, one running process of a cluster out: a module a role."""
