"""What Matching is made of. The service itself is `daemon/nurseries/matching.py`.

task_queue.py   one queue: its tasks in their order, its pollers, what it leaves to the store
slots.py        the daemon's Worker as Matching sees it: which tasks take which of its slots
pages.py        filling a queue from the store while its tasks come and go
"""
