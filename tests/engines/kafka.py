"""A real broker of Kafka: one node on loopback, from Maven Central, run by Java 17."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

VERSION = "4.3.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cmdrdata-engines"
"""Where engines are kept from one run to the next."""

USER, PASSWORD = "meter", "meter-secret"
"""Who may produce at the listener that asks for a user."""

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"""
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
log.dirs={directory}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
"""
STARTED = 90.0
"""Seconds that a broker may take to start."""


def libraries() -> Path:
    """Return the folder of the broker's libraries, fetched where they are not there yet."""
    folder = CACHE / f"kafka-{VERSION}"
    if (folder / "complete").exists():
        return folder / "libs"
    for program, package in (("java", "openjdk-17-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            raise AssertionError(
                f"{program} is missing, which the broker needs: apt-get install {package}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pom.xml").write_text(_POM)
    subprocess.run(
        [
            "mvn",
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            "-DoutputDirectory=libs",
        ],
        cwd=folder,
        check=True,
        timeout=600,
    )
    (folder / "complete").touch()
    return folder / "libs"


def free_ports(number: int) -> list[int]:
    """Return ports of loopback that nobody listens at."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Broker:
    """
    A broker, stopped until `start`.

    Args:
        directory: where its logs are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._classes = f"{libraries()}/*"
        plain, sasl, controller = free_ports(3)
        self.servers, self.sasl_servers = f"127.0.0.1:{plain}", f"127.0.0.1:{sasl}"
        self._properties = directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(
                plain=plain,
                sasl=sasl,
                controller=controller,
                directory=directory,
                user=USER,
                password=PASSWORD,
            )
        )
        tool = ["java", "-cp", self._classes, "kafka.tools.StorageTool"]
        said = subprocess.run([*tool, "random-uuid"], capture_output=True, text=True, check=True)
        cluster = said.stdout.split()[-1]
        subprocess.run(
            [*tool, "format", "--standalone", "-t", cluster, "-c", str(self._properties)],
            capture_output=True,
            check=True,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until clients may use it."""
        options = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        with (self._directory / "out.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["java", *options, "-cp", self._classes, "kafka.Kafka", str(self._properties)],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + STARTED
        while not self._answers():
            assert self._process.poll() is None, (self._directory / "out.log").read_text()
            assert time.monotonic() < deadline, "the broker has not started"

    def _answers(self) -> bool:
        try:
            self._admin().list_topics(timeout=2)
        except KafkaException:
            return False
        return True

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def topic(self, name: str, partitions: int = 3, config: Mapping[str, str] | None = None) -> str:
        """Make a topic, and return its name."""
        topic = NewTopic(name, partitions, 1, config=dict(config or {}))
        admin: Any = self._admin()
        for made in admin.create_topics([topic]).values():
            made.result()
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic, and wait until it is gone."""
        admin: Any = self._admin()
        for gone in admin.delete_topics([name]).values():
            gone.result()
        while name in admin.list_topics(timeout=10).topics:
            pass

    def delete_records(self, name: str, partition: int, before: int) -> None:
        """Delete the records of a partition before one, as retention does."""
        admin: Any = self._admin()
        for gone in admin.delete_records([TopicPartition(name, partition, before)]).values():
            gone.result()
