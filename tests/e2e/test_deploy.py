"""What operators are given in deploy/, as far as it can be judged where no container engine runs: nothing is built or started here, and no broker is needed.

hadolint reads the Containerfile, the library of `docker compose` the compose file, promtool the configuration of Prometheus. What they can't know is compared with the
documentation and with the sources: settings, ports, verbs, versions, and what is mounted.
"""

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = ROOT / "tests/.tools/compose-config"
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
WORKSPACE = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
SECONDS_MAX = 60
MIB = 1024 * 1024


def run(*command):
    """The output of a program that must be content."""
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project():
    return json.loads(run(COMPOSE, DEPLOY / "docker-compose.yml"))


@pytest.fixture(scope="module")
def brokers(project):
    """The services that run our image, by name."""
    ours = {name: service for name, service in project["services"].items() if "build" in service}
    assert len(ours) == 3
    return ours


@pytest.fixture(scope="module")
def stages():
    """The instructions of each stage of the Containerfile, as pairs of a word and the rest."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    begins = [index for index, (word, _) in enumerate(lines) if word == "FROM"] + [len(lines)]
    return [lines[begin:end] for begin, end in zip(begins, begins[1:])]


@pytest.fixture(scope="module")
def image(stages):
    """The last stage, by word; a word that comes several times tells what it said last."""
    return dict(stages[-1])


def variables(line):
    """The variables that an ENV sets."""
    return dict(pair.split("=", 1) for pair in line.split())


def default_port(variable):
    """The port of an address that docs/configuration.md tells as the default of a setting."""
    return int(re.search(rf"- default: `[^`]*:(\d+)`\n- variable `{variable}`", CONFIGURATION)[1])


KAFKA, HTTP = default_port("LAKEBED_KAFKA_LISTEN"), default_port("LAKEBED_LISTEN")


def unpinned(images):
    return [name for name in images if not re.search(r":v?\d+\.\d+\.\d+(-\w+(\.\d+)*)?$", name)]


def published(service):
    return {port["target"]: f"{port.get('host_ip', '')}:{port['published']}" for port in service.get("ports", [])}


def badly_published(project):
    """Ports that others than this machine reach, and those that two services want."""
    addresses = [address for service in project["services"].values() for address in published(service).values()]
    return [address for address in addresses if not address.startswith("127.0.0.1:") or addresses.count(address) > 1]


def mounts(service):
    """What a service is given of this machine's files, by the path where it finds them."""
    return {mount["target"]: mount for mount in service.get("volumes", []) if mount["type"] == "bind"}


def badly_mounted(project):
    all_mounts = [mount for service in project["services"].values() for mount in mounts(service).values()]
    return [mount["source"] for mount in all_mounts if not mount.get("read_only") or not Path(mount["source"]).exists()]


def unknown_settings(names):
    """Variables that would keep a broker from starting."""
    known = re.findall(r"^- variable `(LAKEBED_\w+)`", CONFIGURATION, re.M)
    assert len(known) > 30
    return {name for name in names if name.startswith("LAKEBED_")} - set(known)


def unguarded(service):
    """What a service that needs no rights of the machine does not do without."""
    wanted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
    lacking = [name for name, value in wanted.items() if service.get(name) != value]
    return lacking + [name for name in ("mem_limit", "healthcheck") if name not in service]


def undocumented(arguments):
    """The words of a command line of `lakebed` that docs/cli.md does not have."""
    verb = " ".join(word for word in arguments if not word.startswith("-"))
    _, found, page = (ROOT / "docs/cli.md").read_text().partition(f"\n## lakebed {verb}\n")
    page = page.split("\n## ")[0]
    return [] if found and all(word in page for word in arguments) else arguments


def test_the_containerfile_passes_its_linter():
    run(Path(sys.executable).with_name("hadolint"), "Containerfile")


def test_images_are_pinned_and_are_of_the_releases_that_the_sources_name(project, stages):
    bases = [base.split()[0] for (_, base), *_ in stages]
    assert bases[-1] == "scratch"
    services = [service["image"] for service in project["services"].values()]
    assert unpinned(bases[:-1] + services) == []
    assert re.fullmatch(rf"rust:{re.escape(WORKSPACE['rust-version'])}\.\d+-alpine[\d.]+", bases[0]), "its Rust is static, and the one that is asked for"
    labels = dict(re.findall(r'(\S+)="([^"]*)"', dict(stages[-1])["LABEL"]))
    assert labels["org.opencontainers.image.version"] == WORKSPACE["version"] and labels["org.opencontainers.image.licenses"] == WORKSPACE["license"]


def test_brokers_run_our_image_and_what_it_is_built_from_is_there(brokers, image, stages):
    for broker in brokers.values():
        assert broker["image"] == f"lakebed:{WORKSPACE['version']}"
        assert Path(broker["build"]["context"]) == ROOT and (ROOT / broker["build"]["dockerfile"]).exists()
        # An argument that the file does not declare would be passed over.
        assert set(broker["build"]["args"]) <= {rest.split("=")[0] for word, rest in stages[0] if word == "ARG"}
        assert broker["healthcheck"]["test"] == ["CMD", *json.loads(image["HEALTHCHECK"].partition("CMD ")[2])]


def test_the_image_runs_verbs_that_there_are_and_nobody_else(image):
    entry, command = json.loads(image["ENTRYPOINT"]), json.loads(image["CMD"])
    asked = json.loads(image["HEALTHCHECK"].partition("CMD ")[2])
    assert entry == ["/lakebed"] == asked[:1]
    assert undocumented(command) == undocumented(asked[1:]) == []
    assert image["STOPSIGNAL"] == "SIGTERM"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image["USER"])


def test_ports_are_the_documented_ones_and_lead_to_their_broker(project, brokers, image):
    assert image["EXPOSE"].split() == [str(KAFKA), str(HTTP)]
    listens = {"LAKEBED_KAFKA_LISTEN": f"0.0.0.0:{KAFKA}", "LAKEBED_LISTEN": f"0.0.0.0:{HTTP}"}
    assert variables(image["ENV"]) == listens
    assert badly_published(project) == []
    for name, broker in brokers.items():
        # A client that was told another broker's address would write to one and wait for the other.
        assert broker["environment"]["LAKEBED_ADVERTISE"] == published(broker)[KAFKA]
        assert broker["environment"]["LAKEBED_ADVERTISE_HTTP"] == f"{name}:{HTTP}"
        assert HTTP in published(broker) and not listens.keys() & broker["environment"].keys()
    assert len({broker["environment"]["LAKEBED_STORE"] for broker in brokers.values()}) == 1


def test_settings_are_those_of_the_documentation(brokers, image):
    assert unknown_settings(variables(image["ENV"])) == set()
    assert unknown_settings(name for broker in brokers.values() for name in broker["environment"]) == set()


def test_services_have_no_rights_that_they_do_not_need(project):
    # LocalStack is as it comes.
    ours = {name: service for name, service in project["services"].items() if name != "localstack"}
    assert {name: unguarded(service) for name, service in ours.items()} == dict.fromkeys(ours, [])
    assert badly_mounted(project) == []


def test_brokers_have_the_memory_and_the_time_that_they_may_take(brokers):
    more = int(re.search(r"the process takes up to (\d+) MiB more", CONFIGURATION)[1])
    stopping = re.findall(r"const (?:DRAIN|CLOSE)_MAX: Duration = Duration::from_secs\((\d+)\);", (ROOT / "crates/broker/src/broker.rs").read_text())
    assert len(stopping) == 2
    for broker in brokers.values():
        memory = int(broker["environment"]["LAKEBED_MEMORY"].removesuffix("MiB"))
        # A health check is a process of its own, and sockets count too.
        assert int(broker["mem_limit"]) > (memory + more) * MIB
        assert int(broker["stop_grace_period"].removesuffix("s")) > sum(map(int, stopping))


def test_prometheus_asks_every_broker_and_has_the_alerts(project, brokers):
    run("promtool", "check", "config", "prometheus.yml")
    text = (DEPLOY / "prometheus.yml").read_text()
    assert json.loads(re.search(r"targets: (\[.*\])", text)[1]) == [f"{name}:{HTTP}" for name in brokers]
    assert f'job="{re.search(r"job_name: (.*)", text)[1]}"' in (DEPLOY / "alerts.yml").read_text()
    given = {path: Path(mount["source"]) for path, mount in mounts(project["services"]["prometheus"]).items()}
    assert given == {f"/etc/prometheus/{name}": DEPLOY / name for name in ("prometheus.yml", "alerts.yml")}


def test_the_build_is_given_all_that_the_sources_name():
    allowed = re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.M)
    assert all(list(ROOT.glob(pattern)) for pattern in allowed)
    named = {ROOT / "Cargo.toml", ROOT / "Cargo.lock", ROOT / "LICENSE"}
    for source in ROOT.glob("crates/*/src/**/*.rs"):
        named |= {source.parent / path for path in re.findall(r'include_(?:bytes|str)!\("([^"]+)"\)', source.read_text())}
    for file in [*ROOT.glob("crates/*/build.rs"), *ROOT.glob("crates/*/Cargo.toml")]:
        named |= {file.parent / path for path in re.findall(r'"((?:\.\./)+[^"]+)"', file.read_text())}
    paths = {str(path.resolve().relative_to(ROOT)) for path in named}
    assert paths >= {"proto", "tests/tidy.rs", "tests/data/earthquakes.jsonl.gz"}, "what is named is seen"
    assert [path for path in paths if not any(fnmatch(path, pattern) or path.startswith(f"{pattern}/") for pattern in allowed)] == []


WRONG = """
services:
  first:
    image: first:latest
    ports: ["9092:9092", "127.0.0.1:7070:7070"]
    volumes: ["./nothing:/nothing:ro", "./compose.yml:/compose.yml"]
    cap_drop: [ALL]
  second:
    image: second
    ports: ["127.0.0.1:7070:80"]
"""


def test_what_is_wrong_is_found(tmp_path):
    file = tmp_path / "compose.yml"
    file.write_text(WRONG)
    project = json.loads(run(COMPOSE, file))
    services = project["services"]
    assert unpinned(service["image"] for service in services.values()) == ["first:latest", "second"]
    assert sorted(badly_published(project)) == ["127.0.0.1:7070", "127.0.0.1:7070", ":9092"]
    assert badly_mounted(project) == [str(tmp_path / "nothing"), str(file)]
    assert unguarded(services["first"]) == ["read_only", "security_opt", "mem_limit", "healthcheck"]
    assert unknown_settings(["LAKEBED_STORE", "LAKEBED_STOER", "AWS_REGION"]) == {"LAKEBED_STOER"}
    assert undocumented(["cluster", "healt"]) and undocumented(["serve", "--no-such-flag"])

    file.write_text(WRONG.replace("cap_drop", "cap_dorp"))
    refused = subprocess.run([COMPOSE, file], capture_output=True, text=True, timeout=SECONDS_MAX)
    assert refused.returncode != 0 and "cap_dorp" in refused.stderr
