"""Links over Redis streams: one stream an inbox, a consumer group for its owner.

`exchange.py`, `carrier.py`, `inbox.py` and `post.py` are the daemon's end, `envelope.py` is what stands in a stream;
`host.py`, `sending.py`, `reading.py`, `calling.py` and `checks.py` run in its process, where nothing imports Trio.
`daemon/redis` drives it. docs/links.md has the keys.
"""
