"""Prometheus metrics of the endpoint (GET /metrics)."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 40, 50, 60)
_PICTURES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class ServingMetrics:
    """Counters of one server; each has its own registry, so that two can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("serving_requests", "Answers", ["status"], registry=self.registry)
        self.request_s = self._histogram("serving_request_seconds", "Time to the answer", _SECONDS)
        self.queue_s = self._histogram("serving_queue_seconds", "Time before the model began", _SECONDS)
        self.batch_s = self._histogram("serving_batch_seconds", "Time of one batch in the model", _SECONDS)
        self.batch_pictures = self._histogram("serving_batch_pictures", "Pictures in one batch", _PICTURES)
        self.pictures = Counter("serving_pictures", "Pictures drawn", registry=self.registry)
        self.flagged = Counter("serving_flagged_pictures", "Replaced by the safety checker", registry=self.registry)
        self.unchecked = Counter("serving_unchecked_pictures", "No safety checker saw them", registry=self.registry)
        self.refused = Counter("serving_refused_prompts", "Refused by SERVE_REFUSED_PROMPTS", registry=self.registry)
        self.failures = Counter("serving_model_failures", "Pictures that the model failed at", registry=self.registry)
        self.restarts = Counter("serving_model_thread_restarts", "Times its thread died", registry=self.registry)
        self.load_s = self._gauge("serving_load_seconds", "Time to load and warm up the model")
        self.deviation = self._gauge(
            "serving_batch_deviation", "Largest difference that batching makes to the denoiser's output; 0: none"
        )
        self.model = Info("serving_model", "The model behind the endpoint", registry=self.registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        self._gauge(name, text).set_function(value)

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, registry=self.registry, buckets=buckets)
