"""What wrk prints is read with its units and its failures."""

import pytest
import wrk

REPORT = """Running 2s test @ http://127.0.0.1:5000
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.35ms    1.13ms  21.50ms   88.72%
    Req/Sec     7.40k   512.10     8.30k    70.00%
  Latency Distribution
     50%  880.00us
     75%    4.60ms
     90%    5.20ms
     99%    1.04s
  14733 requests in 2.00s, 63.21MB read
Requests/sec:   7365.32
Transfer/sec:     31.60MB
"""
FAULTS = """  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 90
"""


def test_rate_and_latencies_are_read_with_their_units():
    measured = wrk.read_report(REPORT)

    assert (measured.per_second, measured.calls, measured.failed) == (7365.32, 14733, 0)
    assert (measured.p50_ms, measured.p99_ms) == (pytest.approx(0.88), 1040)


def test_refused_calls_and_broken_connections_count_as_failed():
    faulty = REPORT.replace("Requests/sec", f"{FAULTS}Requests/sec")

    assert wrk.read_report(faulty).failed == 100


def test_a_skewed_order_asks_the_first_as_often_as_zipf_says():
    order = wrk.skewed(3)

    assert order.count(0) == pytest.approx(2 * order.count(1), rel=0.05)
    assert order.count(0) == pytest.approx(3 * order.count(2), rel=0.05)
