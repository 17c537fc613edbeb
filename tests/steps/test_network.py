"""How hosts reach each other: the interface that SageMaker names, and the addresses on it."""

import json
import socket
import sys
from pathlib import Path

import pytest

from steps.container import Cluster, Container
from steps.errors import StepError
from steps.network import head_address, own_address, unreachable, use_interface

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="addresses of interfaces are asked of Linux")


def cluster(interface: str = "lo", hosts: int = 2, head: str = "algo-1") -> Cluster:
    names = tuple(f"algo-{number}" for number in range(1, hosts + 1))
    return Cluster(names, "algo-1", head, 7777, 6379, interface=interface)


def test_the_interface_is_resourceconfigs(tmp_path: Path) -> None:
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    about = {"hosts": ["algo-1"], "current_host": "algo-1"}
    (config / "resourceconfig.json").write_text(json.dumps(about | {"network_interface_name": "eth7"}))
    assert Container({"SAGEMAKER_BASE_DIR": str(tmp_path)}).cluster().interface == "eth7"
    (config / "resourceconfig.json").write_text(json.dumps(about))
    assert Container({"SAGEMAKER_BASE_DIR": str(tmp_path)}).cluster().interface == ""


@LINUX
def test_collectives_use_it_where_nothing_else_is_set() -> None:
    environment = {"NCCL_SOCKET_IFNAME": "eth9"}
    use_interface(cluster(), environment)
    assert environment == {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "eth9"}


def test_one_host_and_a_job_that_names_none_stay_as_they_are() -> None:
    environment: dict[str, str] = {}
    use_interface(cluster(hosts=1), environment)
    use_interface(cluster(interface=""), environment)
    assert environment == {}


def test_an_interface_that_this_host_does_not_have_is_named_with_those_it_has() -> None:
    with pytest.raises(StepError, match=r"network_interface_name 'eth7' is no interface of this host, which has .*lo"):
        use_interface(cluster("eth7"), {})
    use_interface(cluster("eth7"), {"GLOO_SOCKET_IFNAME": "x", "NCCL_SOCKET_IFNAME": "x"})


@LINUX
def test_a_host_is_reached_at_its_interfaces_address_whatever_its_name_resolves_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: pytest.fail(f"looked up {name}"))
    assert own_address(cluster()) == head_address(cluster()) == "127.0.0.1"


def test_without_an_interface_it_is_the_address_from_which_it_would_speak() -> None:
    """As in processing jobs, whose resourceconfig.json names none; 127.0.0.1 is set from outside, on one machine."""
    assert own_address(cluster("", head="127.0.0.1")) == "127.0.0.1"


def test_names_that_are_not_known_yet_are_errors_that_pass() -> None:
    with pytest.raises(OSError):
        own_address(cluster("", head="algo-1"))


def test_who_does_not_answer_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(server.getsockname()) == ""
        address = server.getsockname()
    assert unreachable(address) == "Connection refused"
