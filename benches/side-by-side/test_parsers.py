#!/usr/bin/env python3
"""What the tools print is read right. Starts and fetches nothing: `python3 benches/side-by-side/test_parsers.py`."""

import sys
import unittest

sys.dont_write_bytecode = True

import kafka
import nats
import sagwan
import server
import table
from measure import Figure
from system import Failed


class Parsers(unittest.TestCase):
    def test_the_last_line_of_the_producer_counts_and_warm_up_and_windows_do_not(self) -> None:
        output = (
            "1234 records sent, 246.8 records/sec (0.02 MB/sec), 1.0 ms avg latency, 5.0 ms max latency.\n"
            "5000 records sent, 900.0 records/sec (0.09 MB/sec), 1.0 ms avg latency, 5.0 ms max latency, 1 ms 50th.\n"
            "4000 steady state records sent, 1000.5 records/sec (0.1 MB/sec), 1.0 ms avg latency, 5.0 ms max latency.\n"
        )
        self.assertEqual(kafka.sent_per_s(output), 1000.5)
        self.assertEqual(kafka.sent_per_s(output.split("4000")[0]), 900.0)
        with self.assertRaises(Failed):
            kafka.sent_per_s("org.apache.kafka.common.errors.TimeoutException")

    def test_the_first_interval_of_the_consumer_is_its_warm_up(self) -> None:
        output = (
            "time, threadId, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
            "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
            "2026-01-01 00:00:01:000, 0, 0.0, 0.0, 0, 0.0, 0, 0, 0.0, 0.0\n"
            "2026-01-01 00:00:02:000, 0, 9.5, 9.5, 100000, 100000.0, 0, 1000, 9.5, 100000.0\n"
            "2026-01-01 00:00:03:000, 0, 47.6, 38.1, 500000, 400000.0, 0, 1000, 38.1, 400000.0\n"
            "2026-01-01 00:00:03:500, 0, 76.2, 57.2, 800000, 600000.0, 0, 500, 57.2, 600000.0\n"
        )
        rate, records = kafka.consumed(output)
        self.assertAlmostEqual(rate, 700_000 / 1.5)
        self.assertEqual(records, 800_000)
        for few in (1, 3):
            with self.assertRaises(Failed):
                kafka.consumed("\n".join(output.splitlines()[:few]))

    def test_the_rate_of_nats_has_commas(self) -> None:
        output = "NATS JetStream asynchronous publisher stats: 1,103,437 msgs/sec ~ 105 MiB/sec ~ 0.91us"
        self.assertEqual(nats.rate(output), 1103437.0)
        with self.assertRaises(Failed):
            nats.rate("nats: error: no stream")

    def test_costs_of_sagwan_are_scaled_to_all_that_was_done(self) -> None:
        output = (
            '{"rounds": [{"produced": {"records": 100, "bytes": 11000, "records_per_s": 50.0}, "caught_up": null,'
            ' "server": {"cpu_s": 1.0, "bytes": 5500}}]}'
        )
        self.assertEqual(sagwan.outcome(output, "produced"), sagwan.Outcome(50.0, 100, 2.0))
        short = output.replace("5500", "0")
        self.assertIsNone(sagwan.outcome(short, "produced").cpu_s)
        with self.assertRaises(Failed):
            sagwan.outcome(output, "caught_up")

    def test_texts_of_proc(self) -> None:
        ticks = server.os.sysconf("SC_CLK_TCK")
        text = f"7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 {2 * ticks} {ticks} 0 0 20 0 4 0 1 2 3"
        self.assertEqual(server.cpu_s(text), 3.0)
        self.assertEqual(server.status_bytes("Name:\tx\nVmHWM:\t  2048 kB\n", "VmHWM"), 2 << 20)
        with self.assertRaises(ValueError):
            server.status_bytes("Name:\tx\n", "VmHWM")


class Table(unittest.TestCase):
    def test_ratios_are_of_the_same_round(self) -> None:
        rates = {("sagwan", "client"): [10.0, 40.0], ("kafka", "client"): [5.0, 10.0]}
        figures = [
            Figure("none", round_, "produce", "fsync", 100, *who, 1000, rate, rate * 100, 1.0, 1, 1)
            for who, all_rates in rates.items()
            for round_, rate in enumerate(all_rates)
        ]
        rows = table.summary(figures)
        kafka_row = next(row for row in rows if row["system"] == "kafka")
        self.assertEqual(kafka_row["sagwan_to_it"], {"client": {"median": 3.0, "least": 2.0, "most": 4.0}})
        self.assertIn("3.00 (2.00-4.00)", table.render(rows))


if __name__ == "__main__":
    unittest.main()
