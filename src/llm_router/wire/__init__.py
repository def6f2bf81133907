"""Reads and writes bytes: server-sent events, the few fields of a request we look at, errors, meters. Pure."""
