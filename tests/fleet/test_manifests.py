"""The files of examples/fleet say what the programs that read them understand, and agree with each other."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from cmdrdata_exporter.cli.gateway import gateway
from tests.engines.collector import CONFIGURATION, EXAMPLES
from tests.engines.kafka import libraries

KUSTOMIZATION: Any = yaml.safe_load((EXAMPLES / "kustomization.yaml").read_text())
COMPOSE: Any = yaml.safe_load((EXAMPLES / "docker-compose.yaml").read_text())
COLLECTOR: Any = yaml.safe_load(CONFIGURATION.read_text())


def manifests() -> list[Any]:
    """Return every object for Kubernetes."""
    return [
        document
        for name in KUSTOMIZATION["resources"]
        for document in yaml.safe_load_all((EXAMPLES / name).read_text())
    ]


def containers() -> Iterator[tuple[str, Any]]:
    """Return the containers for Kubernetes, each with the name of what runs it."""
    for manifest in manifests():
        if "template" in manifest.get("spec", {}):
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                yield manifest["metadata"]["name"], container


def gateway_commands() -> list[list[str]]:
    """Return the command lines of all gateways."""
    of_compose = [
        service["command"]
        for service in COMPOSE["services"].values()
        if service.get("build") == "."
    ]
    return [*of_compose, *(one["args"] for name, one in containers() if name == "gateway")]


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)
def test_kubernetes_knows_each_field(manifest: Any) -> None:
    """No field is misspelled, and none is missing: Kubernetes leaves out what it does not know without a word."""
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_all_manifests_are_applied() -> None:
    """A file that is not listed would not be applied."""
    found = {f"kubernetes/{path.name}" for path in (EXAMPLES / "kubernetes").glob("*.yaml")}
    assert found == set(KUSTOMIZATION["resources"])
    [generated] = KUSTOMIZATION["configMapGenerator"]
    assert {"name": "collector", "files": [CONFIGURATION.name]} == generated


def test_services_find_their_pods() -> None:
    """A service selects the pods of one set, and its ports are some that a container of theirs has."""
    pods = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]
        for manifest in manifests()
        if manifest["kind"] in {"StatefulSet", "Deployment"}
    }
    services = [manifest for manifest in manifests() if manifest["kind"] == "Service"]
    assert {"collector", "kafka", "postgres"} == {each["metadata"]["name"] for each in services}
    for service in services:
        pod = pods[service["metadata"]["name"]]
        assert service["spec"]["selector"] == pod["metadata"]["labels"]
        ports = {port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["port"] for port in service["spec"]["ports"]} <= ports


@pytest.mark.parametrize("command", gateway_commands(), ids=str)
def test_the_gateway_knows_its_options(command: list[str]) -> None:
    """Each command line is one that the gateway of this version takes, and reads both topics."""
    name, *options = command
    assert "gateway" == name
    context = gateway.make_context(name, [*options, "--ledger", "postgresql://db/usage"])
    topics = {context.params["spans_topic"], context.params["events_topic"]}
    assert {"otlp_spans", "usage"} == {topic.rpartition("/")[2] for topic in topics}
    with pytest.raises(click.ClickException):
        gateway.make_context(name, [*options, "--no-such-option"])


def kafka_settings() -> Iterator[Any]:
    """Return what each form says to a broker, as the image would write it to a file."""
    of_compose = COMPOSE["services"]["kafka"]["environment"]
    [container] = (container for name, container in containers() if name == "kafka")
    of_kubernetes = {
        # As the command of the first pod sets them.
        "KAFKA_NODE_ID": "0",
        "KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://kafka-0.kafka:9092",
        **{each["name"]: each["value"] for each in container["env"]},
    }
    for form, variables in (("compose", of_compose), ("kubernetes", of_kubernetes)):
        settings = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value
            for name, value in variables.items()
            if name.startswith("KAFKA_")
        }
        yield pytest.param(settings, id=form)


@pytest.mark.parametrize("settings", list(kafka_settings()))
def test_a_broker_takes_its_settings(settings: dict[str, str], tmp_path: Path) -> None:
    """Kafka makes its log with what the manifests say, as the first node of the quorum."""
    properties = tmp_path / "server.properties"
    lines = (settings | {"log.dirs": str(tmp_path / "logs")}).items()
    properties.write_text("".join(f"{name}={value}\n" for name, value in lines))
    tool = ["java", "-cp", f"{libraries()}/*", "kafka.tools.StorageTool", "format"]
    done = subprocess.run(
        [*tool, "-t", "bWV0ZXJpbmctZXhhbXBsZQ", "-c", str(properties)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"node.id={settings['node.id']}" in (tmp_path / "logs/meta.properties").read_text()


def test_topics_take_what_the_collector_takes() -> None:
    """A request fits into a record, and a record into the topic, wherever that is made."""
    http = COLLECTOR["receivers"]["otlp"]["protocols"]["http"]["max_request_body_size"]
    grpc = COLLECTOR["receivers"]["otlp"]["protocols"]["grpc"]["max_recv_msg_size_mib"]
    produced = COLLECTOR["exporters"]["kafka"]["producer"]["max_message_bytes"]
    texts = [
        COMPOSE["services"]["topics"]["command"][2],
        *(one["command"][2] for name, one in containers() if name == "topics"),
    ]
    assert 2 == len(texts)
    for text in texts:
        [limit] = re.findall(r"max\.message\.bytes=(\d+)", text)
        [topics] = re.findall(r"for topic in ([\w ]+);", text)
        assert max(http, grpc << 20) < produced < int(limit)
        assert ["otlp_spans", "usage"] == topics.split()


def test_the_collector_keeps_what_it_has_acknowledged() -> None:
    """What loses spans that were acknowledged is not there, and what keeps them is."""
    assert "processors" not in COLLECTOR
    [pipeline] = COLLECTOR["service"]["pipelines"].values()
    assert {"receivers": ["otlp"], "exporters": ["kafka"]} == pipeline
    kafka = COLLECTOR["exporters"]["kafka"]
    assert kafka["producer"]["required_acks"] == -1
    assert kafka["retry_on_failure"]["max_elapsed_time"] == 0
    queue = kafka["sending_queue"]
    assert queue["storage"] in COLLECTOR["service"]["extensions"]
    assert queue["block_on_overflow"]
    assert COLLECTOR["extensions"]["file_storage"]["fsync"]


def test_compose_names_what_is_there() -> None:
    """Each service has an image or is built, and what it depends on, mounts and reads is there."""
    for service in COMPOSE["services"].values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (EXAMPLES / source).is_file()
    assert (EXAMPLES / "Dockerfile").is_file()


def test_one_version_everywhere() -> None:
    """An engine has one version, and the Collector that of the one that is built for the tests."""
    images = {
        image
        for image in (
            *(service.get("image") for service in COMPOSE["services"].values()),
            *(container["image"] for _, container in containers()),
        )
        if image is not None
    }
    names = [image.partition(":")[0] for image in images]
    assert sorted(set(names)) == sorted(names)
    [collector] = (image for image in images if "opentelemetry-collector" in image)
    built = set(re.findall(r"contrib/\S+ v(\S+)", Path(EXAMPLES / "build.yaml").read_text()))
    assert {collector.partition(":")[2]} == built
