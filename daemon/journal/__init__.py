"""What History is made of: live runs, group commit, loading, waiting, pages. The service itself is
`daemon/nurseries/history.py`.

    session.py      one ownership of the shards: finds runs, decides, gathers, releases
    live.py         runs in memory, and how they are read back
    batch.py        what one commit writes and releases
    committer.py    one commit after the other
    calls.py, registry.py, reports.py, schedule_calls.py
                    what may be asked: executions, definitions, workers' reports, schedules
    schedules.py    schedules, and what they fire; zones.py their cron texts and time zones
    handout.py      what is told of a task to Matching and to workers
    clock_steps.py  the machine's clock is set
    stepping.py     runs that never rest, in turns
    waiting.py      callers who wait for a run
    pages.py        a history as it goes over the wire
    definitions.py  parsed definitions
    outbox.py       one-way messages to the other services
    identity.py     run ids and shards
"""
