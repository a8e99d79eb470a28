"""What History is made of: live runs, group commit, loading, waiting, pages. The service itself is
`daemon/nurseries/history.py`.

    live.py         runs in memory, and how they are read back        batch.py      what one commit writes and releases
    committer.py    one commit after the other                        outbox.py     one-way messages to the other services
    waiting.py      callers who wait for a run                        pages.py      a history as it goes over the wire
    definitions.py  parsed definitions, registration                  identity.py   run ids and shards
"""
