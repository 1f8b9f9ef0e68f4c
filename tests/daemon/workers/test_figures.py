"""The figures of all workers as one."""

from connectors.metric import Histogram, Samples
from daemon.workers.figures import Figures
from daemon.workers.messages import Family


def families(samples: Samples) -> list[Family]:
    """As a worker sends them."""
    return [
        Family(each.type, each.name, each.documentation, [(s.name, dict(s.labels), s.value) for s in each.samples])
        for each in samples
    ]


def worker(clients: int, deliveries: int, *, cpu_s: float = 1.0, accepting: bool = True) -> list[Family]:
    samples, delay = Samples(), Histogram((0.5, 1.0))
    delay.add(0.7, deliveries)
    samples.count("process_cpu_seconds", "CPU.", cpu_s)
    samples.value("tickerd_clients_max", "Most.", 100)
    samples.value("tickerd_accepting", "Lets in.", accepting)
    samples.gauge("tickerd_clients", "Clients.", "format").add_metric(["json"], clients)
    samples.count("tickerd_deliveries", "Deliveries.", deliveries)
    samples.histogram("tickerd_delay_seconds", "Delay.", delay)
    return families(samples)


def told(figures: Figures) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series once. Fails where one is there twice."""
    samples = Samples()
    samples.count("process_cpu_seconds", "CPU.", 9.0)
    figures.measure(samples)
    found = [
        ((sample.name, frozenset(sample.labels.items())), float(sample.value))
        for family in samples
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    assert len(dict(found)) == len(found), "a series is there twice"
    return dict(found)


def of(figures: Figures, name: str, **labels: str) -> float | None:
    return told(figures).get((name, frozenset(labels.items())))


def test_what_is_counted_is_added_up_and_what_a_process_uses_is_told_of_each() -> None:
    figures = Figures()
    figures.measured(1, worker(3, 10, cpu_s=1.5))
    figures.measured(2, worker(4, 20, cpu_s=2.5, accepting=False))
    assert of(figures, "tickerd_clients", format="json") == 7
    assert of(figures, "tickerd_deliveries_total") == 30
    assert of(figures, "tickerd_delay_seconds_bucket", le="1.0") == 30
    assert of(figures, "tickerd_delay_seconds_count") == 30
    assert of(figures, "tickerd_clients_max") == 100, "it holds for all together"
    assert of(figures, "tickerd_accepting") == 0
    assert of(figures, "process_cpu_seconds_total") == 9.0, "the parent's own"
    assert of(figures, "process_cpu_seconds_total", worker="1") == 1.5
    assert of(figures, "process_cpu_seconds_total", worker="2") == 2.5


def test_a_counter_never_falls_when_a_worker_ends_and_what_is_there_now_goes() -> None:
    figures = Figures()
    figures.measured(1, worker(3, 10))
    figures.measured(2, worker(4, 20))
    for _ in range(2):
        figures.ended(2)
        assert of(figures, "tickerd_deliveries_total") == 30
        assert of(figures, "tickerd_delay_seconds_count") == 30
        assert of(figures, "tickerd_clients", format="json") == 3
        assert of(figures, "process_cpu_seconds_total", worker="2") is None
    figures.measured(2, worker(1, 5))
    assert of(figures, "tickerd_deliveries_total") == 35
    assert of(figures, "tickerd_clients", format="json") == 4
    figures.ended(2)
    figures.ended(1)
    assert of(figures, "tickerd_deliveries_total") == 35
