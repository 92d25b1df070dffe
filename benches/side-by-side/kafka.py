"""Apache Kafka: one node in KRaft mode from the jars of Maven Central, and its own performance tools."""

import base64
import os
import random
import re
import shutil
from datetime import datetime
from pathlib import Path

from server import Server
from system import Failed, Load, Outcome, System, environment, fetch_with, free_port

VERSION = "4.3.1"
MAVEN_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
CLUSTER_ID = "c2lkZS1ieS1zaWRlLTAwMA"
# What bin/kafka-server-start.sh and bin/kafka-run-class.sh of the distribution give the JVM.
PERFORMANCE = (
    "-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
    "-XX:+ExplicitGCInvokesConcurrent -XX:MaxInlineLevel=15 -Djava.awt.headless=true"
).split()
BROKER_HEAP = ["-Xmx1G", "-Xms1G"]
CLIENT_HEAP = ["-Xmx512M"]
# The tool otherwise makes each record byte by byte while it measures.
PAYLOADS = 10_000
# How often the consumer tells how far it is; what it read in the first interval, its JVM starting cold, is not counted.
INTERVAL_MS = 1_000
TIME = "%Y-%m-%d %H:%M:%S:%f"

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>side-by-side</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{version}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
"""

PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={data}
num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
FSYNC = "log.flush.interval.messages=1\n"

SENT = re.compile(r"^(\d+) (?:steady state )?records sent, ([\d.]+) records/sec", re.MULTILINE)


class Kafka(System):
    name = "kafka"
    modes = {"client": "its Java producer, ProducerPerformance"}
    consumer_modes = {"client": "its Java consumer, ConsumerPerformance"}
    # A broker is quick once its code is compiled.
    warm_up = {"fsync": 1_000_000, "os": 2_000_000}

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache = cache / "kafka"
        self.libraries = self.cache / f"libs-{VERSION}"
        self.port, self.controller_port = free_port(), free_port()
        home = os.environ.get("JAVA_HOME")
        self.java = str(Path(home) / "bin" / "java") if home else "java"

    def fetch(self) -> None:
        if shutil.which(self.java) is None:
            raise Failed("Kafka needs Java 17 or newer: no java on the PATH, and no JAVA_HOME")
        if self.libraries.exists():
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        (self.cache / "pom.xml").write_text(POM.format(version=VERSION))
        unfinished = self.cache / "libs-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        goal = [f"{MAVEN_PLUGIN}:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"]
        fetch_with(["mvn", "-q", "-B", *goal], self.cache)
        unfinished.rename(self.libraries)

    def version(self) -> str:
        return VERSION

    def _properties(self, data: Path | str, durability: str) -> str:
        text = PROPERTIES.format(port=self.port, controller_port=self.controller_port, data=data)
        return text + (FSYNC if durability == "fsync" else "")

    def configuration(self, durability: str) -> str:
        return (
            f"# java {' '.join([*BROKER_HEAP, *PERFORMANCE])} kafka.Kafka server.properties\n"
            "# (tools: " + " ".join([*CLIENT_HEAP, *PERFORMANCE]) + ")\n" + self._properties("DATA", durability)
        )

    def _run(self, heap: list[str], main: str) -> list[str]:
        level = "-Dorg.apache.logging.log4j.level=WARN"
        return [self.java, *heap, *PERFORMANCE, level, "-cp", f"{self.libraries}/*", main]

    def start(self, directory: Path, durability: str, enter: list[str]) -> Server:
        properties = directory / "server.properties"
        properties.write_text(self._properties(directory / "data", durability))
        storage = [*self._run(CLIENT_HEAP, "kafka.tools.StorageTool"), "format", "--standalone"]
        self.client("format", [*storage, "--cluster-id", CLUSTER_ID, "--config", properties])
        command = [*enter, *self._run(BROKER_HEAP, "kafka.Kafka"), str(properties)]
        return Server(command, self.port, directory / "log", environment())

    def _payloads(self, record_bytes: int) -> Path:
        path = self.cache / f"payloads-{record_bytes}"
        if not path.exists():
            # The tool reads text: random base64 is as random as it can be told.
            chance = random.Random(record_bytes)
            lines = (base64.b64encode(chance.randbytes(record_bytes))[:record_bytes] for _ in range(PAYLOADS))
            path.write_bytes(b"\n".join(lines))
        return path

    def produce(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        # As many again before, which the tool does not time: its JVM starts cold.
        output = self.client(
            f"produce {load.record_bytes} B, {load.durability}",
            [*self._run(CLIENT_HEAP, "org.apache.kafka.tools.ProducerPerformance"), "--bootstrap-server", server.address]
            + ["--topic", topic, "--num-records", 2 * records, "--warmup-records", records, "--throughput", "-1"]
            + ["--payload-file", self._payloads(load.record_bytes), "--command-property", f"batch.size={load.batch_bytes}"]
            + [f"linger.ms={load.linger_ms}", "compression.type=none", "acks=all", "enable.idempotence=true"]
            + [f"max.in.flight.requests.per.connection={load.in_flight}"],
        )
        return Outcome(sent_per_s(output), 2 * records)

    def consume(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        output = self.client(
            f"consume {load.record_bytes} B",
            [*self._run(CLIENT_HEAP, "org.apache.kafka.tools.ConsumerPerformance"), "--bootstrap-server", server.address]
            + ["--topic", topic, "--num-records", 2 * records, "--fetch-size", load.fetch_bytes]
            + ["--show-detailed-stats", "--reporting-interval", INTERVAL_MS],
        )
        return Outcome(*consumed(output))


def sent_per_s(output: str) -> float:
    """The rate of the steady part, which is the last line that ProducerPerformance prints; of all without a warm-up."""
    lines = SENT.findall(output)
    if not lines:
        raise Failed(f"ProducerPerformance printed no rate:\n{output[-2000:]}")
    return float(lines[-1][1])


def consumed(output: str) -> tuple[float, int]:
    """Records a second after the first interval, and records in all, from the lines of --show-detailed-stats.

    Joining the group falls in the first interval too, or in intervals without records before it.
    """
    lines = [line.split(", ") for line in output.splitlines() if ", " in line]
    heads = [index for index, line in enumerate(lines) if "data.consumed.in.nMsg" in line]
    if not heads:
        raise Failed(f"ConsumerPerformance printed no figures:\n{output[-2000:]}")
    rows = [dict(zip(lines[heads[-1]], line)) for line in lines[heads[-1] + 1 :]]
    points = [(datetime.strptime(row["time"], TIME), int(row["data.consumed.in.nMsg"])) for row in rows]
    points = [point for point in points if point[1] > 0]
    if len(points) < 2 or points[-1][0] == points[0][0]:
        raise Failed(f"ConsumerPerformance was done within {INTERVAL_MS} ms: give it more to read:\n{output[-2000:]}")
    return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]).total_seconds(), points[-1][1]
