#!/usr/bin/env python3
"""What the tools print is read right. Starts and fetches nothing: `python3 benches/side-by-side/test_parsers.py`."""

import subprocess
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True

import kafka
import nats
import sagwan
import server
import table
from measure import Figure, Measurement, Plan
from system import Failed, Load, Outcome


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

    def test_the_first_second_of_the_consumer_is_its_warm_up(self) -> None:
        head = (
            "time, threadId, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
            "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec"
        )
        points = [("01:000", 0), ("02:000", 1), ("02:500", 100_000), ("03:000", 300_000), ("04:000", 1_100_000)]
        lines = [head] + [f"2026-01-01 00:00:{at}, 0, 0.0, 0.0, {records}, 0.0, 0, 0, 0.0, 0.0" for at, records in points]
        self.assertAlmostEqual(kafka.consumed_per_s("\n".join(lines)), 800_000)
        self.assertAlmostEqual(kafka.consumed_per_s("\n".join(lines[:4])), 99_999 / 0.5, msg="never warm")
        for few in (0, 1, 3):
            with self.assertRaises(Failed):
                kafka.consumed_per_s("\n".join(lines[:few]))

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


class Costs(unittest.TestCase):
    def test_cpu_time_is_of_the_whole_run_but_where_the_tool_writes_what_it_reads(self) -> None:
        class Idle(sagwan.Sagwan):
            def produce(self, *_: object) -> Outcome:
                return Outcome(1.0, 10**7, 77.0)

            consume = produce

        plan = Plan([100], ["os"], 1, 1.0, 1, 1, 1, 1, 1)
        load = Load("os", 100, 1, 1, 1, 1)
        measurement = Measurement(plan, [], Path())
        own = Idle(Path())
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as server:
            costs = {
                what: measurement._measure(server, own, "client", load, what, 1, "t")["server_cpu_s_per_gb"]
                for what in ("produce", "consume")
            }
        self.assertLess(costs["produce"], 1.0, "nothing was asked of the server")
        self.assertEqual(costs["consume"], 77.0)


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
