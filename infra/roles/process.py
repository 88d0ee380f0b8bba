"""Settings in, derived segments and fork updates in Kafka out: the role `headrace process`.

    raw.logs ─► decode ─► events ─► aggregate ─► aggregates
    raw.heads ─► reorg ─► forks                                (head lane only)

One Faust worker of one lane. What its agents do is in `processors/agents.py`; here it is started,
watched and stopped. It keeps nothing: start as many as there are partitions.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
import uvloop
from aiokafka.errors import KafkaError
from faust import App

from infra.contracts import declare_contracts
from infra.kafka.admin import check_topics, connect
from infra.kafka.clients import FETCH_TOGETHER, METADATA_SECONDS_MAX, wire_bytes_max
from infra.kafka.faust_broker import faust_brokers, faust_credentials
from infra.kafka.producer import EnvelopeProducer
from infra.roles.membership import Membership, members_of
from infra.roles.process_logs import QuietHandler, quiet_logs
from infra.roles.process_offsets import group_offsets
from infra.roles.role_run import RoleRun, run_role
from infra.roles.topic_reader import TopicReader
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings
from processors.abi import build_layouts
from processors.agent_plan import Fetching, Plan
from processors.agents import build_app
from processors.steps import build_steps
from schemas.errors import Permanent
from schemas.errors_process import OneLaneEach, WorkerFailed
from schemas.segments import DEAD_LETTERS, FORKS, RAW_HEADS, data_topic
from schemas.topics import FORK_STATE, topic_name

log = structlog.get_logger(__name__)

WATCH_SECONDS = 0.5
"""How often the producer is asked whether a message failed."""
CRASH_SECONDS_MAX = 5.0
"""How long a worker that failed may take to leave its group."""
BUFFER_MESSAGES = 16
"""Messages that Faust holds for an agent; they are bounded by their number, not their bytes."""
FETCH_BYTES_MAX = 4 * 1024 * 1024
"""Bytes that a fetch brings of one partition; a larger message comes alone."""
COMMIT_SECONDS = 1.0


def run_process(
    settings: Settings, *, accept_lost: bool = False, rebuild_forks: bool = False
) -> int:
    """Run a worker until it is told to stop, or fails.

    Parameters
    ----------
    settings
        The process's.
    accept_lost
        Go on after messages that retention dropped.
    rebuild_forks
        Give up the stored fork states, and make them anew of the heads that are kept.

    Returns
    -------
    int
        The exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises
    ------
    HeadraceError
        Whatever stopped it. What was not acknowledged is read again by the next worker.
    """
    plan = make_plan(settings, accept_lost=accept_lost, rebuild_forks=rebuild_forks)

    def work(run: RoleRun) -> None:
        reader = partial(TopicReader, settings.kafka, stopping=run.stopping)
        uvloop.run(Worker(run, settings, replace(plan, reader=reader)).serve())

    return run_role("process", settings, work)


def make_plan(
    settings: Settings, *, accept_lost: bool = False, rebuild_forks: bool = False
) -> Plan:
    """What the settings ask of one worker.

    Raises
    ------
    OneLaneEach
        If they name both lanes, or no agent of the lane.
    """
    lanes, agents = settings.roles.lanes, settings.roles.agents
    asked = {"lanes": ",".join(lanes), "agents": ",".join(agents)}
    if len(set(lanes)) != 1:
        raise OneLaneEach(**asked, reason="two were named")
    lane = lanes[0]
    steps = build_steps(build_layouts(declare_contracts(settings)))
    steps = tuple(step for step in steps if step.agent in agents)
    reorg = lane == "head" and "reorg" in agents
    if not steps and not reorg:
        raise OneLaneEach(**asked, reason="the history lane has no agent `reorg`")
    return Plan(
        lane,
        settings.kafka.topic_prefix,
        steps,
        reorg,
        settings.limits.fork,
        partial(TopicReader, settings.kafka),
        Fetching(*FETCH_TOGETHER) if lane == "history" else Fetching(),
        accept_lost,
        rebuild_forks and reorg,
    )


def faust_conf(kafka: KafkaSettings, group: str) -> dict[str, Any]:
    """The options of `faust.App` that settings and measurements decide."""
    session = kafka.session_timeout_seconds
    return {
        "broker": faust_brokers(kafka),
        "broker_credentials": faust_credentials(kafka),
        "broker_client_id": "headrace-process",
        "broker_session_timeout": session,
        "broker_heartbeat_interval": session / 5,
        "broker_request_timeout": max(60.0, session + 5),
        "broker_rebalance_timeout": kafka.poll_interval_seconds_max,
        "broker_max_poll_interval": max(kafka.poll_interval_seconds_max, session),
        "broker_commit_interval": COMMIT_SECONDS,
        "consumer_group_instance_id": kafka.member(group),
        "consumer_metadata_max_age_ms": METADATA_SECONDS_MAX * 1000,
        "consumer_max_fetch_size": min(FETCH_BYTES_MAX, wire_bytes_max(kafka)),
        "producer_max_request_size": wire_bytes_max(kafka),
        "stream_buffer_maxsize": BUFFER_MESSAGES,
    }


class Counters:
    """What the agents did, as metrics."""

    def __init__(self, run: RoleRun) -> None:
        self._blocks = run.counter("headrace_blocks_total", "stage")
        self._rows = run.counter("headrace_logs_total", "stage")
        self._refused = run.counter("headrace_dead_letters_total", "stage")

    def derived(self, agent: str, blocks: int, rows: int) -> None:
        """The brokers have what was derived of a message of so many blocks and rows."""
        self._blocks.labels(agent).inc(blocks)
        self._rows.labels(agent).inc(rows)

    def refused(self, agent: str, error: Permanent) -> None:
        """A message went to ``dead_letters``."""
        self._refused.labels(agent).inc()
        log.warning("dead_letter", stage=agent, code=error.code, what=error.what_text)


class Worker:
    """One Faust worker: its checks, its life and its end."""

    def __init__(self, run: RoleRun, settings: Settings, plan: Plan) -> None:
        self._run, self._settings, self._plan = run, settings, plan
        self._kafka = settings.kafka
        self._joined = asyncio.Event()
        self._admin: Any = None

    async def serve(self) -> None:
        """Work until the role is to stop.

        Raises
        ------
        HeadraceError
            What ended it.
        """
        self._run.health.expect("kafka", "group")
        stop = self._run.stop_event()
        partitions = await asyncio.to_thread(self._check)
        said = quiet_logs()
        with EnvelopeProducer(self._kafka, partitions, client_id="headrace-process") as producer:
            conf = faust_conf(self._kafka, self._plan.app_id)
            app = build_app(self._plan, conf, producer, Counters(self._run))
            await self._work(app, producer, said, stop)

    def _check(self) -> dict[str, int]:
        """Are topics there, and what was not read yet? Gives the partitions of each topic."""
        plan, prefix = self._plan, self._kafka.topic_prefix
        sources = [data_topic(step.takes, plan.lane) for step in plan.steps]
        names = [*sources, *(data_topic(step.gives, plan.lane) for step in plan.steps)]
        if plan.reorg:
            sources.append(RAW_HEADS)
            names += [RAW_HEADS, FORKS, FORK_STATE]
        self._admin = connect(self._kafka, "headrace-process")
        partitions = check_topics(self._kafka, [*dict.fromkeys(names), DEAD_LETTERS], self._admin)
        read = {topic_name(prefix, name): partitions[name] for name in dict.fromkeys(sources)}
        with group_offsets(self._kafka, plan.app_id) as offsets:
            if plan.rebuild_forks:
                offsets.read_again(topic_name(prefix, RAW_HEADS))
            offsets.check_kept(read, accept_lost=plan.accept_lost or plan.rebuild_forks)
        self._run.health.ready("kafka")
        return partitions

    async def _work(
        self, app: App, producer: EnvelopeProducer, said: QuietHandler, stop: asyncio.Event
    ) -> None:
        """Start the app, wait for whatever ends it, stop it; raise what it failed of."""
        starting = asyncio.create_task(self._start(app))
        watching = asyncio.create_task(self._watch(producer, said))
        belonging = asyncio.create_task(self._belong(app))
        # Faust offers no other way to be told of a crash.
        crashed = asyncio.create_task(app._crashed.wait())
        stopping = asyncio.create_task(stop.wait())
        failure: BaseException | None = None
        try:
            ends = {watching, belonging, crashed, stopping}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            failed = [task.exception() for task in (watching, belonging) if task.done()]
            failure = failed[0] if failed else app.crash_reason
            async with asyncio.timeout(None if failure is None else CRASH_SECONDS_MAX):
                await app.stop()
        except TimeoutError:
            log.info("worker_left_its_group_behind")
        except AssertionError as error:
            # Faust commits while it stops, also for a group that has moved on without us.
            failure = failure or error
        finally:
            tasks = (starting, watching, belonging, crashed, stopping)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if failure is not None:
            raise self._coded(failure) from failure

    async def _start(self, app: App) -> None:
        try:
            await app.start()
        except Exception as error:  # noqa: BLE001 - it ends the worker as a crash does
            await app.crash(error)
            return
        self._run.health.ready("group")
        self._joined.set()
        log.info("worker_ready", group=self._plan.app_id)

    async def _watch(self, producer: EnvelopeProducer, said: QuietHandler) -> None:
        """Raise what ended a message; say that the loop goes round."""
        while True:
            self._run.health.beat("worker")
            self._run.health.ready("kafka", met=producer.reachable, note="no broker answers")
            producer.flush(0)
            if said.passed_over.is_set():
                raise WorkerFailed(detail="Faust was given no partition of a topic that is there")
            await asyncio.sleep(WATCH_SECONDS)

    async def _belong(self, app: App) -> None:
        """Raise once the brokers have long held the worker for no member of its group."""
        await self._joined.wait()
        # Faust reads in a thread of its own, and offers no way to ask it.
        member: Any = app.consumer
        group = self._plan.app_id
        membership = Membership(
            group,
            self._kafka.session_timeout_seconds,
            lambda: members_of(self._admin, group),
            lambda: member._thread._consumer._coordinator.member_id,
        )
        while True:
            await asyncio.sleep(membership.every_seconds)
            await asyncio.to_thread(membership.check)

    def _coded(self, failure: BaseException) -> BaseException:
        # Faust and aiokafka assert that they are in a group where they no longer are.
        if isinstance(failure, KafkaError | OSError | AssertionError):
            detail = f"{type(failure).__name__}: {failure}"
            return WorkerFailed(detail=detail)
        return failure
