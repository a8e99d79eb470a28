"""What Matching is made of. The service itself is `daemon/nurseries/matching.py`.

known.py         every task and queue that is known, by name
entry.py         one task that is known, and the orders in which such tasks are kept
task_queue.py    one queue: its tasks in their order, its pollers, what it leaves to the store
parking.py       beside it: its tasks that wait for the circuit breaker of their destination
polls.py         who waits for a task, and until when
slots.py         the daemon's Worker as Matching sees it: which tasks take which of its slots
activity_polls.py  who waits for activities' tasks; node_polls.py  which Workers of other processes wait for nodes'
waiting_tasks.py what is read from the store; of a partition, what is its own
membership.py    who is there to have partitions
pulling.py       which queues are to be filled from the store; pages.py  filling one while its tasks come and go
breaker.py       one circuit breaker, a state machine
destinations.py  the destinations of all tenants, each with its breaker
looks.py         what queues and breakers look like from outside
breakers.py      which tasks wait for a breaker, and when they go

And what there is besides where Matchings share their queues (`daemon/queues/`):

filling.py       filling them from the store
company.py       what those who share them tell one another, and what queues look like then

And what stands in the place of Matching where a Worker is a process of its own:

remote.py        polls the partitions, has starts recorded, renews leases
held.py          the tasks that the Worker has, and how far their end has come
"""
