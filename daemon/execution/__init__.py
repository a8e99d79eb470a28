"""One execution as an event-sourced aggregate: pure, no I/O, no clock, no chance of its own.

    command ──► decide(run, command, env) ──► events + what the commit obliges us to do
                     │        ▲
                     ▼        │ evolve(run, event): the only way a state changes
                  the run's state

Theory of operation. A run's truth is its events, numbered 1 … n. Its state is a fold of `evolve` over them, so a
replayed state equals the live one by construction: `decide` itself moves forward only by emitting an event and
evolving with it. `decide` evaluates the definition's expressions and records the outcome (`next`, payloads, times);
`evolve` never evaluates. What a run waits for is visible in its state as deadlines, queued tasks and branches that
are ready; nothing else exists that could be lost.

A decision is bounded. A loop of Pass states or a Map over 10,000 items is cut into steps, each committed on its own,
with a `Proceed` between them.

    state.py      the tree of branches and nodes           commands.py   what can be asked; what a decision may know
    evolve.py     events → state                           decide.py     the way in
    step.py       one decision while it is made            nodes.py      entering, leaving, failing: the walk
    tasks.py      attempts and reports                     fanout.py     Map and Parallel
    deadlines.py  timers, timeouts, leases                 transient.py  what the default retry retries
    snapshot.py   state as bytes                           tokens.py     task tokens          view.py  Describe
"""
