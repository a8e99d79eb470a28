"""Task queues that several Matchings share: what waits, what was given out until when, what comes back later.

interface.py   what one partition's queues are asked, and answer
memory.py      inside one process, for daemons that run in one
open.py        which of them a URL means
redis/         in Redis, through a driver process of their own

All of it can be lost: it is filled again from the store.
"""
