"""Task queues in Redis: sorted sets, moved by one script, an `Ask` a call.

turn.lua is the script; `script.py` says what goes into it and comes out. `queues.py` is the daemon's end; `host.py`
runs in its process, where nothing imports Trio. `daemon/redis` drives it. docs/queues.md has the keys.
"""
