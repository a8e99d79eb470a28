"""What node types that run users' code are made of: interpreters in processes of their own, and the pool of them.

`host` is what runs in such a process, with `python` or `javascript`; `process` and `pool` are the daemon's side of it.
Only the child imports an interpreter: nothing of a user's text is parsed or run in the daemon.
"""
