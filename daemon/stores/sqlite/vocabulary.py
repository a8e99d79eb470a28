"""The words of histories, of which a store makes the dictionary that it compresses them with.

A commit writes some hundred bytes of events, too few for a compressor to learn from, and the same field names and
types each time. They stand in this text once. What comes last is found at least cost, so the commonest do.

The dictionary is made when a store is made and kept in its file (table `dictionaries`), so that a file says by itself
how it is read, whatever this text has become since. A store takes up a better text when VOCABULARY is raised: its
dictionary is put beside the older ones, by which what was written before is read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

VOCABULARY = 1
"""The number of the dictionary that is made of this text."""

_SAMPLES = 100
_TIME = "2026-01-01T00:00:00.000000Z"
_ABOUT = f'"id":9,"time":"{_TIME}"'
_NODE = f'{_ABOUT},"node":"","path":"","entry":9'
_SECOND = f'"id":2,"time":"{_TIME}","node":"","path":"","entry":2'
_THIRD = f'"id":3,"time":"{_TIME}","node":"","path":"","entry":2'
_START = f'{{"type":"WorkflowStarted","id":1,"time":"{_TIME}","by":"local","tenant":"default","workflow_id":'

EVENTS = (
    f'{{"type":"WorkflowTimedOut",{_ABOUT},"error":"States.Timeout","cause":"","waited_seconds":60.0}}',
    f'{{"type":"WorkflowCanceled",{_ABOUT},"reason":""}}',
    f'{{"type":"WorkflowCancelRequested",{_ABOUT},"by":"","reason":"","request_id":""}}',
    f'{{"type":"WorkflowTerminated",{_ABOUT},"by":"","reason":"","request_id":""}}',
    f'{{"type":"WorkflowRedriven",{_ABOUT},"by":"","reason":"","request_id":"","again":[9],"entry":9,"input":{{}}}}',
    f'{{"type":"ClockStepped",{_ABOUT},"seconds":3600.0}}',
    f'{{"type":"SignalReceived",{_ABOUT},"by":"","name":"","input":{{}},"request_id":""}}',
    f'{{"type":"ChildWorkflowStarted",{_NODE},"task":9,"workflow_id":"~0.","run_id":"01"}}',
    f'{{"type":"ChildWorkflowClosed",{_NODE},"task":9,"workflow_id":"~0.","run_id":"01","status":"SUCCEEDED"}}',
    f'{{"type":"TaskCanceled",{_NODE},"task":9,"reason":""}}',
    f'{{"type":"TaskReturned",{_NODE},"task":9,"reason":"","times":1}}',
    f'{{"type":"TaskSubmitted",{_NODE},"task":9,"output":{{}}}}',
    f'{{"type":"TaskDeadLettered",{_NODE},"resource":"http","error":"","cause":"","attempts":[{{"attempt":1,'
    f'"scheduled_at":"{_TIME}","failed_at":"{_TIME}","error":"","cause":""}}],"input_ref":9}}',
    f'{{"type":"MapRunStarted",{_NODE},"plan":{{}},"total":9,"attempt":1,"input_ref":9}}',
    f'{{"type":"MapItemsStarted",{_NODE},"run":9,"first":0,"run_ids":["01","01"],"items":[1,1],"total":9,'
    '"position":"","exhausted":true}',
    f'{{"type":"MapItemsEnded",{_NODE},"run":9,"ended":[{{"index":0,"status":"SUCCEEDED","result":{{}}}},'
    '{"index":1,"status":"SUCCEEDED","dropped":true},{"index":2,"status":"FAILED","error":""}]}',
    f'{{"type":"MapStarted",{_NODE},"total":9,"concurrency":1,"next":"","attempt":1,"input_ref":9}}',
    f'{{"type":"MapIterationStarted",{_NODE},"index":0,"input":{{}}}}',
    f'{{"type":"MapIterationEnded",{_NODE},"index":0,"status":"SUCCEEDED","output_ref":9}}',
    f'{{"type":"ParallelStarted",{_NODE},"next":["",""],"attempt":1,"input_ref":9}}',
    f'{{"type":"BranchEnded",{_NODE},"index":0,"status":"SUCCEEDED","output_ref":9}}',
    f'{{"type":"TaskTimedOut",{_NODE},"task":9,"kind":"START_TO_CLOSE","waited_seconds":60.0,'
    '"error":"States.Timeout","cause":""}',
    f'{{"type":"TaskFailed",{_NODE},"task":9,"error":"States.Http.StatusCode.503","cause":"","retry_after_seconds":1.0}}',
    f'{{"type":"TaskRetryScheduled",{_NODE},"attempt":2,"at":"{_TIME}","retrier":0,"error":"States.TaskFailed"}}',
    f'{{"type":"NodeFailed",{_NODE},"error":"States.TaskFailed","cause":"","next":"",'
    '"output":{"Error":"","Cause":""}}',
    f'{{"type":"WorkflowFailed",{_ABOUT},"error":"States.TaskFailed","cause":""}}',
    f'{{"type":"TimerFired",{_NODE},"late_seconds":0.00}}',
    f'{{"type":"TaskStarted",{_NODE},"task":9,"worker":"","lease_seconds":60.0}}',
    f'{{"type":"TaskStarted",{_NODE},"task":9,"worker":"daemon","began_at":"{_TIME}"}}',
    f'{{"type":"TaskCompleted",{_NODE},"task":9,"output":{{"StatusCode":200,"StatusText":"","Headers":{{'
    '"content-type":["application/json"],"content-length":["2"]},"ResponseBody":{},"ResponseBodyEncoding":"JSON"}}',
    f'{{"type":"NodeExited",{_NODE},"next":"","output":{{}},"assigned":{{}}}}',
    f'{{"type":"NodeExited",{_NODE},"output_ref":9}}',
    f'{{"type":"WorkflowSucceeded",{_ABOUT},"output_ref":9}}',
    f'{_START}"\x1fw","run_id":"\x1fr","workflow":"","version":1,"definition_hash":"\x1fd","next":"","input":{{}},'
    f'"labels":{{}},"request_id":"\x1fq","timeout_at":"{_TIME}","parent":{{"workflow_id":"","run_id":"\x1fp","event":9,'
    '"index":0,"state":""}}',
    f'{_START}"\x1fr","run_id":"\x1fr","workflow":"","version":1,"definition_hash":"\x1fd","next":"","input":{{"":""}}}}',
    f'{{"type":"NodeEntered",{_SECOND},"kind":"Choice","input_ref":1}}',
    f'{{"type":"NodeEntered",{_SECOND},"kind":"Wait","input_ref":1}}',
    f'{{"type":"TimerStarted",{_THIRD},"fire_at":"{_TIME}","named":true}}',
    f'{{"type":"NodeEntered",{_SECOND},"kind":"Task","input_ref":1}}',
    f'{{"type":"TaskScheduled",{_THIRD},"kind":"activity","resource":"activity:","queue":"","attempt":1,"input_ref":1,'
    '"timeout_seconds":60.0,"schedule_to_start_seconds":86400.0,"heartbeat_seconds":30.0}',
    f'{{"type":"TaskScheduled",{_THIRD},"kind":"node","resource":"http","queue":"http","attempt":1,"input":{{"Method":'
    '"POST","ApiEndpoint":"https://","RequestBody":{}},"timeout_seconds":60.0,"schedule_to_start_seconds":86400.0,'
    '"destination":""}',
)
"""An event of each type, in the spelling of `enginekit.messages.events`; `\\x1fr` and so on are the marks that
`histories.py` puts in the place of names."""

_WORDS = (
    *("order", "customer", "name", "email", "street", "city", "country", "total", "currency", "amount", "price"),
    *("quantity", "title", "id", "status", "result", "value", "item", "items", "count", "payment", "charge", "ship"),
    *("send", "check", "wait", "approve", "notify", "update", "create", "delete", "user", "account", "invoice"),
    *("report", "message", "text", "data", "key", "file", "path", "size", "type", "error", "reason"),
)


def samples() -> list[list[str]]:
    """Commits of a few events about nothing in particular, the same each time: what is beside the vocabulary in them
    tells a compressor which bytes are frequent in names, numbers and times."""
    chance = random.Random(1)
    return [
        [_filled(event, chance) for event in chance.sample(EVENTS, chance.randrange(1, 6))] for _ in range(_SAMPLES)
    ]


def _filled(event: str, chance: random.Random) -> str:
    def word() -> str:
        return chance.choice(_WORDS)

    def number() -> str:
        return str(chance.randrange(1, 200))

    def time() -> str:
        date = f"20{chance.randrange(26, 30)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
        hours, minutes, seconds = chance.randrange(24), chance.randrange(60), chance.randrange(60)
        return f"{date}T{hours:02}:{minutes:02}:{seconds:02}.{chance.randrange(1000):03}000Z"

    def value() -> str:
        return chance.choice(
            [f'"{word().title()} {word()}"', f'"{word()}-{number()}"', f"{number()}00", "true", "null"]
        )

    def payload() -> str:
        return "{" + ",".join(f'"{word()}":{value()}' for _ in range(chance.randrange(1, 6))) + "}"

    node = word().title() + word().title()
    event = event.replace('"node":"","path":""', f'"node":"{node}","path":"{node}"')
    blanks: tuple[tuple[str, Callable[[], str]], ...] = (
        (re.escape(_TIME), time),
        (r"\{\}", payload),
        (r'(?<=:)""', lambda: f'"{word()}"'),
        (r"(?<=:)9\b", number),
    )
    for blank, fill in blanks:
        event = _with(event, blank, fill)
    return event


def _with(event: str, blank: str, fill: Callable[[], str]) -> str:
    return re.sub(blank, lambda _: fill(), event)
