from berg.machinery.metrics import Cell, Registry, exponential, number


def test_the_text():
    r = Registry()
    jobs = r.counter("jobs_total", "Jobs", ("result",))
    took = r.histogram("took_seconds", "How long", [0.1, 1])
    r.gauge("depth", "Waiting", ("name",), lambda: [(('a"b',), 3.0)])
    r.counter("never_total", "Nobody counted", ("label",))
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


def test_numbers_are_written_as_go_writes_them():
    written = {0: "0", 1e-05: "1e-05", 0.00016: "0.00016", 65536: "65536", 1e6: "1e+06", 1048576: "1.048576e+06"}
    assert {v: number(v) for v in written} == written
    assert [number(b) for b in exponential(1e-08, 10, 5)] == ["1e-08", "1e-07", "1e-06", "9.999999999999999e-06",
                                                             "9.999999999999999e-05"]  # fmt: skip
    assert number(float("inf")) == "+Inf"


def test_one_cell_tells_families_of_different_bounds():
    r = Registry()
    cell = Cell((0.001, 0.01, 0.1, 1))
    cell.observe_many(0.005, 3)
    cell.observe(0.5)
    r.distribution("coarse", "h", (0.1, 1), ("a",), lambda: [(("b",), cell)])
    lines = r.text().splitlines()[2:]
    assert lines[:3] == ['coarse_bucket{a="b",le="0.1"} 3', 'coarse_bucket{a="b",le="1"} 4',
                         'coarse_bucket{a="b",le="+Inf"} 4']  # fmt: skip
    assert lines[4] == 'coarse_count{a="b"} 4'


def test_corrections():
    seen, corrections = Cell((1, 2)), Cell((1, 2))
    seen.observe(1.5)
    seen.observe(0.5)
    corrections.moved(1.5, 0.25)
    corrected = seen.plus(corrections)
    assert (corrected.buckets, corrected.count, corrected.total) == ([2, 0, 0], 2, 0.75)


def test_levels():
    r = Registry()
    r.counter("a_total", "[ALPHA] A")
    r.counter("b_total", "[STABLE] B")
    r.counter("c_total", "[ALPHA] C")
    r.counter("d_total", "D")
    assert dict(r.levels()) == {("ALPHA",): 2, ("STABLE",): 1}
