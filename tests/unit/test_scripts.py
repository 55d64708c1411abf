"""Scripts and deployment files: they parse, run as nobody special, know how to say no, and name no host."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pricecache.app import EXIT_CONFIG
from pricecache.metrics import Metrics
from pricecache.providers.sample import SYMBOLS
from pricecache.settings import Settings

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "scripts" / name for name in ("run", "test", "check", "bench")] + [ROOT / ".ci" / "run"]
DEPLOYMENT = [ROOT / "Dockerfile", *sorted((ROOT / "deploy").iterdir())]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts in a folder of their own, with nothing set up in it."""
    shutil.copytree(ROOT / "scripts", tmp_path / "clone" / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")
    return tmp_path / "clone"


def programs(folder: Path, **scripts: str) -> str:
    """A PATH with the system's programs and with `scripts` in their stead, python among them or not at all."""
    folder.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "env", "flock", "grep", "tail"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def run(script: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"PATH": path}
    return subprocess.run(
        [str(script), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


# the scripts


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "scripts" / "setup.sh"], ids=name_of)
def test_a_script_is_bash_without_a_fault(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_script_can_be_called_and_stops_at_its_first_failure(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("name", ["run", "test"])
def test_an_old_python_is_told_what_to_install(clone: Path, tmp_path: Path, name: str) -> None:
    path = programs(tmp_path / "bin", python3='[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    answer = run(clone / "scripts" / name, path)
    assert answer.returncode == 1
    assert "Python 3.11 or newer is needed" in answer.stderr
    assert "3.9.2" in answer.stderr
    assert "apt-get install" in answer.stderr


def test_a_python_without_venv_is_told_what_to_install(clone: Path, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", python3='case "$2" in *ensurepip*) exit 1 ;; esac; exit 0')
    answer = run(clone / "scripts" / "run", path)
    assert answer.returncode == 1
    assert "python3-venv" in answer.stderr


PIP = """
if [ "$2" = venv ]; then
    folder=${!#}
    command -p mkdir -p "$folder/bin"
    command -p cp "$0" "$folder/bin/python"
elif [ "$2" = pip ]; then
    echo "pip $*" >>"$CALLS"
    [ "$(command -p wc -l <"$CALLS")" -gt "$PIP_FAILS" ]
elif [ "$2" = pricecache ] || [ "$2" = pytest ]; then
    echo "started $*"
fi
"""
"""A stand-in for Python that says what it was asked for; everything else it is asked, it affirms."""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where each call of pip is written down; the first `PIP_FAILS` of them fail."""
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PIP_FAILS", "0")
    return tmp_path / "calls"


def extras(calls: Path) -> list[str]:
    return re.findall(r"-e \.\[(\w+)\]", calls.read_text())


def test_what_is_set_up_is_not_set_up_again(clone: Path, tmp_path: Path, calls: Path) -> None:
    path = programs(tmp_path / "bin", python3=PIP)
    assert "started -m pricecache serve" in run(clone / "scripts" / "run", path).stdout
    assert "started -m pricecache serve" in run(clone / "scripts" / "run", path).stdout
    assert extras(calls) == ["demo"]


def test_what_one_script_sets_up_serves_the_other(clone: Path, tmp_path: Path, calls: Path) -> None:
    path = programs(tmp_path / "bin", python3=PIP)
    for name in ("test", "run", "test"):
        assert run(clone / "scripts" / name, path).returncode == 0
    assert extras(calls) == ["dev"]


def test_a_change_of_the_project_sets_up_again(clone: Path, tmp_path: Path, calls: Path) -> None:
    path = programs(tmp_path / "bin", python3=PIP)
    run(clone / "scripts" / "run", path)
    with (clone / "pyproject.toml").open("a") as project:
        project.write("\n")
    run(clone / "scripts" / "run", path)
    assert extras(calls) == ["demo", "demo"]


def test_a_moved_folder_sets_up_again(clone: Path, tmp_path: Path, calls: Path) -> None:
    path = programs(tmp_path / "bin", python3=PIP)
    run(clone / "scripts" / "run", path)
    moved = clone.rename(tmp_path / "moved")
    run(moved / "scripts" / "run", path)
    assert extras(calls) == ["demo", "demo"]


def test_a_failing_pip_is_tried_once_more(
    clone: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FAILS", "1")
    answer = run(clone / "scripts" / "test", programs(tmp_path / "bin", python3=PIP))
    assert answer.returncode == 0
    assert extras(calls) == ["dev", "dev"]


def test_a_set_up_that_failed_is_begun_again_the_next_time(
    clone: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FAILS", "2")
    path = programs(tmp_path / "bin", python3=PIP)
    failed = run(clone / "scripts" / "run", path)
    assert failed.returncode == 1
    assert "could not install" in failed.stderr
    assert run(clone / "scripts" / "run", path).returncode == 0
    assert extras(calls) == ["demo"] * 3


@pytest.mark.parametrize(("cores", "workers"), [("echo 1", 1), ("echo 2", 2), ("echo 96", 4), ("exit 1", 2)])
def test_the_suite_has_a_worker_for_each_core_and_four_at_most(
    clone: Path, tmp_path: Path, calls: Path, cores: str, workers: int
) -> None:
    path = programs(tmp_path / "bin", python3=PIP, nproc=cores)
    answer = run(clone / "scripts" / "test", path, "-n", "0", "tests/unit")
    assert re.search(rf"^started -m pytest -n {workers} .* -n 0 tests/unit$", answer.stdout, re.MULTILINE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may install a browser")
@pytest.mark.parametrize("outcome", ["true", "false"])
def test_a_run_of_the_tests_gets_a_browser_or_goes_without(
    clone: Path, tmp_path: Path, calls: Path, outcome: str
) -> None:
    apt_get = f'echo "apt-get $*" >>"$CALLS"; {outcome}'
    answer = run(clone / "scripts" / "test", programs(tmp_path / "bin", python3=PIP, **{"apt-get": apt_get}))
    assert "started -m pytest" in answer.stdout
    assert re.search(r"^apt-get install .* chromium$", calls.read_text(), re.MULTILINE)
    assert ("go without" in answer.stderr) is (outcome == "false")


def test_a_benchmark_that_is_none_is_a_usage_error(clone: Path) -> None:
    (clone / "benchmarks").mkdir()
    (clone / "benchmarks" / "prices.py").write_text('if __name__ == "__main__":\n    pass\n')
    answer = run(clone / "scripts" / "bench", os.environ["PATH"], "../pyproject")
    assert answer.returncode == 2
    assert "prices" in answer.stderr


def test_the_demonstration_shows_every_sample() -> None:
    text = (ROOT / "scripts" / "run").read_text().replace("\\\n", "")
    (listed,) = re.findall(r"^samples=(\S+)$", text, re.MULTILINE)
    assert listed.split(",") == [str(instrument).removesuffix(":US") for instrument in SYMBOLS]


# the deployment


@pytest.mark.parametrize("file", [*SCRIPTS, *DEPLOYMENT, ROOT / "scripts" / "setup.sh"], ids=name_of)
def test_a_file_names_no_host_but_this_one(file: Path) -> None:
    hosts = re.findall(r"https?://([^\s/:'\"$]+)|\b([a-z0-9-]+\.(?:com|org|io|net|dev))\b", file.read_text())
    assert {host for pair in hosts for host in pair if host} <= {"127.0.0.1"}


def instructions(text: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


@pytest.fixture
def image() -> list[tuple[str, str]]:
    return instructions((ROOT / "Dockerfile").read_text())


def last(image: list[tuple[str, str]], word: str) -> str:
    return [rest for found, rest in image if found == word][-1]


def test_the_image_is_of_instructions_that_docker_knows(image: list[tuple[str, str]]) -> None:
    known = {"FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in image} <= known


def test_the_image_runs_as_somebody_who_is_not_root(image: list[tuple[str, str]]) -> None:
    assert last(image, "USER") not in ("root", "0")
    assert [word for word, _ in image].index("USER") < [word for word, _ in image].index("ENTRYPOINT")


def test_the_image_keeps_its_data_on_a_volume_and_answers_for_its_health(image: list[tuple[str, str]]) -> None:
    assert last(image, "VOLUME") == "/data"
    assert "PRICECACHE_DATA_DIR=/data" in last(image, "ENV")
    assert "/healthz" in last(image, "HEALTHCHECK")


def test_the_health_check_is_a_program_that_compiles(image: list[tuple[str, str]]) -> None:
    (program,) = re.findall(r'"-c", "(.*)"\]', last(image, "HEALTHCHECK"))
    compile(program.strip(), "HEALTHCHECK", "exec")


def test_the_image_asks_for_keys(image: list[tuple[str, str]]) -> None:
    """It listens on every address, and the daemon refuses that without keys."""
    assert "PRICECACHE_HOST=0.0.0.0" in last(image, "ENV")
    assert "PRICECACHE_API_KEYS" not in last(image, "ENV")


def test_every_setting_named_in_the_deployment_exists() -> None:
    settings = {f"PRICECACHE_{name.upper()}" for name in Settings.model_fields}
    for file in (*DEPLOYMENT, *SCRIPTS):
        assert set(re.findall(r"\bPRICECACHE_[A-Z_]+\b", file.read_text())) <= settings


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / name).read_text())


def test_compose_gives_the_daemon_no_more_than_it_needs() -> None:
    service = loaded("compose.yaml")["services"]["pricecache"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["read_only"]
    assert service["init"]
    assert ":?" in service["environment"]["PRICECACHE_API_KEYS"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_compose_and_systemd_wait_for_the_daemon_to_drain() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    assert int(loaded("compose.yaml")["services"]["pricecache"]["stop_grace_period"].removesuffix("s")) >= drain + 15
    assert int(unit()["Service"]["TimeoutStopSec"]) >= drain + 15


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ROOT / "deploy" / "pricecache.service")
    return parser


def test_the_unit_is_hardened_and_signals_the_daemon_alone() -> None:
    service = unit()["Service"]
    expected = {"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "KillMode": "mixed"}
    assert {name: service[name] for name in expected} == expected
    assert service["CapabilityBoundingSet"] == ""
    assert service["RestartPreventExitStatus"] == str(EXIT_CONFIG)


def test_the_unit_passes_the_check_of_systemd(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    text = (ROOT / "deploy" / "pricecache.service").read_text().replace("/opt/pricecache/bin/pricecache", "/bin/true")
    (tmp_path / "pricecache.service").write_text(text)
    answer = subprocess.run(
        [program, "verify", str(tmp_path / "pricecache.service")], capture_output=True, text=True, check=False
    )
    assert [line for line in answer.stderr.splitlines() if "pricecache.service" in line] == []


def test_every_alert_is_on_a_metric_that_exists_and_says_what_is_wrong() -> None:
    metrics = {metric.name for metric in Metrics("0").describe()}
    for rule in (rule for group in loaded("prometheus-rules.yaml")["groups"] for rule in group["rules"]):
        named = set(re.findall(r"\bpricecache_\w+", rule["expr"]))
        assert named
        assert named <= metrics
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
