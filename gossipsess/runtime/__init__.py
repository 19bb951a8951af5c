"""Sockets, threads and the clock: the only place that imports trio, and only where a node really runs."""
