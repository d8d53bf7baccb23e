"""Why an object is in the state it is in: stable words that people and programs match on."""

from enum import StrEnum


class Reason(StrEnum):
    """The `reason` of a condition or failure. Never renamed; each is met by a test."""

    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105  # a reason
    NO_WORKER = "NoWorker"
    NAMESPACE_LIMIT = "NamespaceLimit"
    PLATFORM_UNAVAILABLE = "PlatformUnavailable"
    POOL_UNKNOWN = "PoolUnknown"
    POLICY_DENIED = "PolicyDenied"
    BUILDING = "Building"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    BUILD_FAILED = "BuildFailed"
    DOCKERFILE_INVALID = "DockerfileInvalid"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    INVALID_REFERENCE = "InvalidReference"
    INVALID_CREDENTIALS = "InvalidCredentials"
    SQUASH_FAILED = "SquashFailed"
    PUSH_UNAUTHORIZED = "PushUnauthorized"
    REGISTRY_UNAVAILABLE = "RegistryUnavailable"
    BUILDER_UNAVAILABLE = "BuilderUnavailable"
    STALLED = "Stalled"
    FEATURE_UNSUPPORTED = "FeatureUnsupported"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CANCELLED = "Cancelled"
    INTERRUPTED = "Interrupted"
    TLS_FAILED = "TLSFailed"
    SCHEDULED = "Scheduled"
    PRUNING = "Pruning"
    PRUNE_FAILED = "PruneFailed"
    NO_TARGET = "NoTarget"
    INVALID_SCHEDULE = "InvalidSchedule"
    OPERATOR_ERROR = "OperatorError"


MEANING: dict[Reason, str] = {
    Reason.QUEUED: "It waits for a free slot on a worker, or for its source to be resolved.",
    Reason.SUSPENDED: "spec.suspend is true: nothing runs until it is false again.",
    Reason.SECRET_NOT_FOUND: "A Secret or ConfigMap that it names is not there yet: it waits.",
    Reason.NO_WORKER: "No worker answers now; the build begins by itself when one does.",
    Reason.NAMESPACE_LIMIT: "Its namespace has all the slots that the pool gives to one.",
    Reason.PLATFORM_UNAVAILABLE: "The pool builds for none of spec.platforms: it waits.",
    Reason.POOL_UNKNOWN: "The operator has no pool of the name in spec.pool: it waits.",
    Reason.POLICY_DENIED: "The pool does not allow it: to this namespace, or spec.network.",
    Reason.BUILDING: "A worker is building it.",
    Reason.RETRYING: "The last attempt met an outage; the next one begins after a pause.",
    Reason.SUCCEEDED: "It was built, and every name it was given was pushed.",
    Reason.BUILD_FAILED: "A step of the build failed: see status.failure and status.logTail.",
    Reason.DOCKERFILE_INVALID: "The Dockerfile cannot be read: see status.failure.line.",
    Reason.SOURCE_UNAVAILABLE: "The source is not there, or is not what was asked for.",
    Reason.INVALID_REFERENCE: "An image name or build argument cannot be used as written.",
    Reason.INVALID_CREDENTIALS: "A Secret does not hold what its use asks for.",
    Reason.SQUASH_FAILED: "The layers of the built image could not be merged.",
    Reason.PUSH_UNAUTHORIZED: "The registry did not accept who we are.",
    Reason.REGISTRY_UNAVAILABLE: "The registry did not answer.",
    Reason.BUILDER_UNAVAILABLE: "The worker was lost while it was building, in every attempt.",
    Reason.STALLED: "Build and worker fell silent, and the worker did not answer when asked.",
    Reason.FEATURE_UNSUPPORTED: "The builder or worker cannot do what a field asks for.",
    Reason.OUT_OF_MEMORY: "A step was killed for want of memory (exit code 137).",
    Reason.DISK_FULL: "The worker's disk is full, and pruning its cache made too little room.",
    Reason.DEADLINE_EXCEEDED: "It ran longer than spec.activeDeadlineSeconds.",
    Reason.CANCELLED: "Somebody asked for its end.",
    Reason.INTERRUPTED: "The operator went down; the next one begins another attempt.",
    Reason.TLS_FAILED: "A certificate was not accepted: the worker's, ours, or a registry's.",
    Reason.SCHEDULED: "A prune waits for the next time of its schedule.",
    Reason.PRUNING: "The caches are being pruned.",
    Reason.PRUNE_FAILED: "A cache could not be pruned: see status.targets.",
    Reason.NO_TARGET: "spec.pools, spec.workers and spec.include leave no cache to prune.",
    Reason.INVALID_SCHEDULE: "spec.schedule or spec.timeZone cannot be used as written.",
    Reason.OPERATOR_ERROR: "The operator itself failed at the object: it tries again, ever later.",
}
