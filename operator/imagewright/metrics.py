"""What is counted and shown under /metrics; one registry, made once and handed around."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All metrics of one operator. No label holds an object's name: their number is bounded."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._count_builds(registry)
        self._count_pools(registry)
        self._count_operator(registry)
        self._count_gateway(registry)

    def _count_builds(self, registry: CollectorRegistry) -> None:
        """What becomes of builds and prunes."""
        self.builds = Counter(
            "imagebuild",
            "Builds that ended, counted once their status is written.",
            ["phase", "reason"],
            registry=registry,
        )
        self.seconds = Histogram(
            "imagebuild_duration_seconds",
            "From the start of a build's first attempt to its end.",
            ["phase"],
            registry=registry,
            buckets=SECONDS,
        )
        self.running = Gauge("imagebuild_running", "Builds that run now.", registry=registry)
        self.disk_full = Counter(
            "imagebuild_disk_full",
            "Times a worker's disk was full, and its cache was pruned for the build that met it.",
            registry=registry,
        )
        self.prunes = Counter(
            "buildcacheprune",
            "Prunes that ended, counted once their status is written.",
            ["phase", "reason"],
            registry=registry,
        )
        self.reclaimed = Counter(
            "buildcacheprune_reclaimed_bytes",
            "Bytes that prunes freed, dry runs left out.",
            registry=registry,
        )

    def _count_pools(self, registry: CollectorRegistry) -> None:
        """Who waits, and for what."""
        self.queue_depth = Gauge(
            "imagebuild_queue_depth",
            "Builds that wait for a slot.",
            ["pool", "namespace"],
            registry=registry,
        )
        self.queue_wait = Histogram(
            "imagebuild_queue_wait_seconds",
            "From the entry into the queue to the slot.",
            ["pool", "namespace"],
            registry=registry,
            buckets=SECONDS,
        )
        self.affinity = Counter(
            "imagebuild_affinity",
            "Slots by whether their worker (hit), only others (miss) or none (new) had the key.",
            ["pool", "result"],
            registry=registry,
        )
        self.slots_used = Gauge(
            "imagebuild_slots_in_use", "Slots that are leased now.", ["pool"], registry=registry
        )
        self.slots = Gauge(
            "imagebuild_slots", "Slots of workers that answer.", ["pool"], registry=registry
        )
        self.workers = Gauge(
            "imagebuild_workers_up", "Workers that answer.", ["pool"], registry=registry
        )

    def _count_operator(self, registry: CollectorRegistry) -> None:
        """How this process fares."""
        self.leader = Gauge(
            "imagebuild_leader",
            "Whether this process leads: 1, or stands by: 0.",
            registry=registry,
        )
        self.transitions = Gauge(
            "imagebuild_lease_transitions",
            "Times that the Lease went to another process, as it says itself.",
            registry=registry,
        )
        self.tasks = Gauge(
            "imagebuild_loop_tasks",
            "Tasks of the main loop: some dozens, and a few for each build that runs.",
            registry=registry,
        )
        self.writes = Counter(
            "imagebuild_status_writes", "Status writes by result.", ["result"], registry=registry
        )
        self.reconciles = Counter(
            "imagebuild_reconciles", "Looks at a build by result.", ["result"], registry=registry
        )
        self.failures = Counter(
            "imagebuild_reconcile_failures",
            "Looks at an object that failed, by its kind and the error's type.",
            ["kind", "error"],
            registry=registry,
        )
        self.backing_off = Gauge(
            "imagebuild_reconcile_backing_off",
            "Objects at which the last look failed, outages left out; the next one comes later.",
            ["kind"],
            registry=registry,
        )
        self.events = Counter(
            "imagebuild_events",
            "Events about objects: posted, failed, or dropped because there were too many.",
            ["result"],
            registry=registry,
        )
        self.watch_restarts = Counter(
            "imagebuild_watch_restarts", "Times the watch was begun again.", registry=registry
        )

    def _count_gateway(self, registry: CollectorRegistry) -> None:
        """Clients of BuildKit."""
        self.gateway_connections = Gauge(
            "imagebuild_gateway_connections",
            "Clients of BuildKit that have a slot (busy), or wait for one (waiting).",
            ["pool", "state"],
            registry=registry,
        )
        self.gateway_refused = Counter(
            "imagebuild_gateway_refused",
            "Clients of BuildKit that got no slot, by reason.",
            ["pool", "reason"],
            registry=registry,
        )
        self.gateway_bytes = Counter(
            "imagebuild_gateway_bytes",
            "Bytes between clients of BuildKit and workers: up is to the worker.",
            ["pool", "way"],
            registry=registry,
        )
