from berg.client.metrics import Registry


def test_the_text():
    r = Registry()
    jobs = r.counter("jobs_total", "Jobs", ("result",))
    took = r.histogram("took_seconds", "How long", [0.1, 1])
    r.gauge("depth", "Waiting", ("name",), lambda: [(('a"b',), 3.0)])
    jobs.inc("ok")
    jobs.inc("ok", by=2)
    took.observe(0.05)
    took.observe(5)
    assert r.text() == (
        "# HELP depth Waiting\n# TYPE depth gauge\n"
        'depth{name="a\\"b"} 3\n'
        "# HELP jobs_total Jobs\n# TYPE jobs_total counter\n"
        'jobs_total{result="ok"} 3\n'
        "# HELP took_seconds How long\n# TYPE took_seconds histogram\n"
        'took_seconds_bucket{le="0.1"} 1\n'
        'took_seconds_bucket{le="1"} 1\n'
        'took_seconds_bucket{le="+Inf"} 2\n'
        "took_seconds_sum 5.05\n"
        "took_seconds_count 2\n"
    )
