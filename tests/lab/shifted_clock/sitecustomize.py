# Sitecustomize: a process whose PYTHONPATH begins with this folder believes another time of day.
#
# In:     LAB_AHEAD_S, seconds.   Out: time.time() and time.time_ns() are that much ahead; monotonic clocks are not.
# Why not libfaketime: it also touches what sleeps by the monotonic clock, and Trio and time.sleep() fail under it.

import os
import time

_ahead_s = float(os.environ.get("LAB_AHEAD_S", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _ahead_s
time.time_ns = lambda: _time_ns() + round(_ahead_s * 1e9)
