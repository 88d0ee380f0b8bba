"""One module a command; each names its function like itself."""
