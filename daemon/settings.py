"""What engine.toml may say: every setting with its default and its unit in its name.

Only the shape lives here. Reading a file strictly, with the line of what is wrong, is in `daemon/configuration.py`.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of engine.toml."""


class StoreSettings(Section, frozen=True, kw_only=True):
    """`url`: `sqlite:///PATH` (empty path: `engine.db` in the data folder), `postgresql://…` (as libpq reads it) or
    `memory:`. `shards`: None is what the backend has by default."""

    url: str = "sqlite:///"
    shards: Annotated[int, Meta(ge=1, le=1024)] | None = None
    lock_wait_seconds: Positive = 10.0
    call_timeout_seconds: Positive = 30.0

    @property
    def store_shards(self) -> int:
        if self.shards is not None:
            return self.shards
        return 64 if self.url.startswith("postgresql:") else 4


class LinkSettings(Section, frozen=True, kw_only=True):
    """`url`: `memory:`, `redis://…`, `rediss://…` (TLS) or `unix://PATH`. `name` is the cluster's. `password_file` has
    what is not in the URL; `ca_file`, `cert_file` and `key_file` are for TLS."""

    url: str = "memory:"
    name: Annotated[str, Meta(min_length=1, max_length=64)] = "engine"
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    call_timeout_seconds: Positive = 5.0


class QueueSettings(Section, frozen=True, kw_only=True):
    """`url`: `memory:` (of each partition's owner) or Redis, as of `LinkSettings`, whose `name` is the cluster's here,
    too. `queue_tasks` of one queue are in Redis; the rest waits in the store."""

    url: str = "memory:"
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    call_timeout_seconds: Positive = 5.0
    queue_tasks: Annotated[int, Meta(ge=10)] = 10_000


class FrontendSettings(Section, frozen=True, kw_only=True):
    """`…_listen` is `HOST:PORT`, port 0: any free one."""

    rpc_listen: str = "127.0.0.1:7460"
    http_listen: str = "127.0.0.1:7461"
    frame_bytes: Annotated[int, Meta(ge=4096, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    batch_calls: Count = 100
    connections: Count = 1000
    in_flight_calls: Count = 256
    """Calls of one connection that may be under way at once."""
    outbox_bytes: Count = 8 * 1024 * 1024
    """Answers of one connection that may wait to be sent."""
    call_timeout_seconds: Positive = 30.0


class HealthSettings(Section, frozen=True, kw_only=True):
    """For processes without the role frontend; with it, `http_listen` of FrontendSettings counts. `listen` is
    `HOST:PORT`, port 0: any free one. None: they listen nowhere."""

    listen: str | None = None


class LimitSettings(Section, frozen=True, kw_only=True):
    """What each tenant may ask for. `…_per_second`: in the long run, 0: without a limit; `…_burst`: at once."""

    starts_per_second: Annotated[float, Meta(ge=0)] = 1000.0
    starts_burst: Annotated[float, Meta(ge=1)] = 5000.0
    writes_per_second: Annotated[float, Meta(ge=0)] = 200.0
    writes_burst: Annotated[float, Meta(ge=1)] = 1000.0
    reads_per_second: Annotated[float, Meta(ge=0)] = 2000.0
    reads_burst: Annotated[float, Meta(ge=1)] = 10_000.0
    work_per_second: Annotated[float, Meta(ge=0)] = 10_000.0
    work_burst: Annotated[float, Meta(ge=1)] = 50_000.0
    connections: Count = 500
    in_flight_calls: Count = 2000
    """Calls that may be under way at once, long polls apart."""
    long_polls: Count = 5000


class AuthSettings(Section, frozen=True, kw_only=True):
    """How tokens are checked. With nothing set the daemon makes an HS256 key in its data folder. `…_credential` names
    a credential of systemd's."""

    algorithms: list[str] = []
    key_file: str | None = None
    key_credential: str | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    audience: str = "engine"
    issuer: str | None = None
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 5.0


class HistorySettings(Section, frozen=True, kw_only=True):
    payload_bytes: Annotated[int, Meta(ge=1024)] = 256 * 1024
    history_events: Annotated[int, Meta(ge=1000)] = 250_000
    history_bytes: Annotated[int, Meta(ge=1024 * 1024)] = 256 * 1024 * 1024
    cache_bytes: Annotated[int, Meta(ge=0)] = 32 * 1024 * 1024
    """States of open runs kept in memory while nothing happens to them; the rest is read back when it is needed."""
    batch_bytes: Count = 4 * 1024 * 1024
    waiters: Count = 20_000
    """Callers that may wait for an execution at once."""
    lease_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0
    """Where daemons share a store: how long the shards of one that died stay without another owner, at most."""
    page_bytes: Count = 2 * 1024 * 1024
    retention_days: Annotated[float, Meta(ge=0, le=36_500)] = 0.0
    """How long closed executions are kept; 0: for ever."""


class MatchingSettings(Section, frozen=True, kw_only=True):
    queue_tasks: Annotated[int, Meta(ge=10)] = 2_000
    """Tasks of one queue held in memory; the rest waits in the store."""
    handout_seconds: Positive = 10.0
    """How long a task may be between Matching and a recorded start before it is offered again."""
    partitions: Annotated[int, Meta(ge=1, le=256)] = 4
    """Parts that the task queues are split into, where several processes share the work."""
    lease_seconds: Positive = 10.0
    """How long a process that is not heard of keeps its partitions."""
    scan_seconds: Positive = 15.0
    """How often the store is asked for tasks whose offer was lost on the way to a partition."""


class BreakerSettings(Section, frozen=True, kw_only=True):
    """Circuit breakers, one for each destination that a tenant's tasks call."""

    enabled: bool = True
    window_seconds: Positive = 30.0
    """How far back calls are counted."""
    minimum_calls: Count = 20
    """With fewer of them in the window a breaker does not open."""
    failure_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """The share of them from which on it opens."""
    open_seconds: Positive = 30.0
    """How long it is open before it is tried again."""
    probes: Annotated[int, Meta(ge=1, le=100)] = 3
    """Calls that try it at once, and that must go well to close it."""
    destinations: Count = 1_000
    """Destinations of one tenant that have a breaker."""


class WorkerSettings(Section, frozen=True, kw_only=True):
    slots: Count = 200
    """Tasks the daemon's own Worker runs at once."""
    drain_seconds: Annotated[float, Meta(ge=0)] = 20.0
    """On SIGTERM, how long running tasks may go on."""


class TimerSettings(Section, frozen=True, kw_only=True):
    window_seconds: Positive = 60.0
    """How far ahead wake-ups are held in memory."""
    scan_seconds: Positive = 15.0
    """How soon after something happened the store is asked for wake-ups whose hint was lost."""
    scan_limit_seconds: Positive = 300.0
    """The pauses between these looks grow up to this while nothing happens."""


class TaskSettings(Section, frozen=True, kw_only=True):
    """Defaults for tasks with our own resource names (states written with ARNs keep the reference service's)."""

    timeout_seconds: Positive = 300.0
    schedule_to_start_seconds: Positive = 86_400.0
    lease_seconds: Positive = 30.0
    returns: Annotated[int, Meta(ge=0)] = 10
    """How often one attempt may come back from lost workers before it fails as Engine.WorkerLost."""
    retry_attempts: Annotated[int, Meta(ge=0)] = 3
    retry_interval_seconds: Positive = 1.0
    retry_backoff_rate: Annotated[float, Meta(ge=1)] = 2.0
    retry_max_delay_seconds: Positive = 30.0
    retry_after_limit_seconds: Positive = 3600.0
    """The longest pause before a retry that a server (`Retry-After`) or a worker may ask for."""


class HttpSettings(Section, frozen=True, kw_only=True):
    """The `http` node."""

    connect_seconds: Positive = 5.0
    read_seconds: Positive = 30.0
    response_bytes: Count = 256 * 1024
    connections: Count = 200
    redirects: Annotated[int, Meta(ge=0)] = 5
    allow: list[str] = []
    """Networks (CIDR) that calls may reach although their addresses are not public."""


class AiSettings(Section, frozen=True, kw_only=True):
    """The nodes `ai:openai` and `ai:anthropic`."""

    connect_seconds: Positive = 5.0
    read_seconds: Positive = 120.0
    """How long nothing may be heard from the server, also before its first word."""
    output_bytes: Annotated[int, Meta(ge=1024)] = 256 * 1024
    """What a model says: text, tool inputs and what it thinks."""
    stream_bytes: Annotated[int, Meta(ge=64 * 1024)] = 32 * 1024 * 1024
    """What may come for one answer in all: some hundred bytes of protocol a word."""
    max_tokens: Count = 4096
    """`MaxTokens` of `ai:anthropic` where a definition has none; its servers need one."""
    connections: Count = 200


class CodeSettings(Section, frozen=True, kw_only=True):
    """The `code:…` nodes: what code may use where a state says nothing, and (`…_limit_…`) what it may ask for."""

    processes: Annotated[int, Meta(ge=1, le=256)] = 2
    """Processes of each language: as many calls run at once."""
    idle_seconds: Positive = 60.0
    start_seconds: Positive = 30.0
    timeout_milliseconds: Count = 5_000
    timeout_limit_milliseconds: Count = 60_000
    memory_bytes: Annotated[int, Meta(ge=1024 * 1024)] = 64 * 1024 * 1024
    memory_limit_bytes: Annotated[int, Meta(ge=1024 * 1024, le=2 * 1024 * 1024 * 1024)] = 256 * 1024 * 1024
    output_bytes: Count = 256 * 1024
    output_limit_bytes: Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)] = 256 * 1024
    source_bytes: Count = 128 * 1024


class ConnectionAuth(str, Enum):
    """How a connection's secret goes along with a call."""

    NONE = "none"
    BEARER = "bearer"
    BASIC = "basic"
    API_KEY = "api_key"


class ConnectionSettings(Section, frozen=True, kw_only=True):
    """`[connections.NAME]`: where definitions that name it may go, with which secret, and whose they may be.

    The secret itself cannot stand here: it comes from a file, a variable of the environment, or a credential of
    systemd's, and is read when it is used. `tenants`: `*` for all of them. With `query` an API key goes into that
    parameter of the query, else into the header.
    """

    url: str
    tenants: Annotated[list[str], Meta(min_length=1)]
    auth: ConnectionAuth = ConnectionAuth.NONE
    header: str = "X-Api-Key"
    query: str | None = None
    username: str = ""
    secret_file: str | None = None
    secret_env: str | None = None
    secret_credential: str | None = None


class FileSettings(Section, frozen=True, kw_only=True):
    """`folder`: where definitions may read items from and write results to. Nowhere, where it is not set."""

    folder: str | None = None

    @property
    def path(self) -> Path | None:
        return None if self.folder is None else Path(self.folder)


class DeadLetterSettings(Section, frozen=True, kw_only=True):
    retention_days: Annotated[float, Meta(ge=0)] = 0.0
    """How long dead letters are kept that nobody redrives or discards; 0: for ever."""


class SupervisorSettings(Section, frozen=True, kw_only=True):
    """A service that fails is restarted after a growing pause; more than `restarts` within `window_seconds` end the
    daemon."""

    restarts: Annotated[int, Meta(ge=0)] = 8
    window_seconds: Positive = 60.0
    backoff_seconds: Positive = 0.1
    backoff_limit_seconds: Positive = 5.0
    drain_seconds: Positive = 30.0


class LogSettings(Section, frozen=True, kw_only=True):
    """`format`: `auto` (`console` on a terminal, `journal` under systemd, `json` elsewhere), or one of these."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    format: Annotated[str, Meta(pattern="^(auto|json|console|journal)$")] = "auto"


class Settings(Section, frozen=True, kw_only=True):
    """The whole of engine.toml."""

    store: StoreSettings = StoreSettings()
    links: LinkSettings = LinkSettings()
    queues: QueueSettings = QueueSettings()
    frontend: FrontendSettings = FrontendSettings()
    health: HealthSettings = HealthSettings()
    limits: LimitSettings = LimitSettings()
    auth: AuthSettings = AuthSettings()
    history: HistorySettings = HistorySettings()
    matching: MatchingSettings = MatchingSettings()
    breakers: BreakerSettings = BreakerSettings()
    worker: WorkerSettings = WorkerSettings()
    timer: TimerSettings = TimerSettings()
    tasks: TaskSettings = TaskSettings()
    http: HttpSettings = HttpSettings()
    ai: AiSettings = AiSettings()
    code: CodeSettings = CodeSettings()
    connections: dict[str, ConnectionSettings] = {}
    files: FileSettings = FileSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    log: LogSettings = LogSettings()
