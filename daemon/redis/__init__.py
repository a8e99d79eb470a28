"""Redis, driven from a process of its own: what links and queues in it have in common.

driver.py      the daemon's end: the process, one connection after another, what is said while Redis is away
settings.py    where Redis is, by engine.toml
hosting.py     the process: two lanes, and a connection for each
connection.py  one of these connections, and what its errors mean
checks.py      whether this Redis can be used, and whether all who use it mean the same cluster
frames.py      what passes between the two ends, whatever the driver is for
keys.py        what all names in Redis begin with

What is asked of Redis is in `daemon/links/redis` and `daemon/queues/redis`. Nothing that runs in the process imports
Trio.
"""
