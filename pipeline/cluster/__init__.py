"""Streams and models over processes and machines, on Ray."""
