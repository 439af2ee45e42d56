"""Latency and throughput of running servers under load, with the field's own definitions."""
