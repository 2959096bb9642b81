import threading
from pathlib import Path

import pytest

from berg.network.cni.ipam import Exhausted, HostLocal


def first(ipam: HostLocal, owner: str) -> str:
    return str(ipam.allocate(owner)[0].ip)


def test_in_turn_from_the_second_on(tmp_path: Path) -> None:
    ipam = HostLocal(str(tmp_path), ["10.0.0.0/29"])
    assert [first(ipam, f"pod{n}") for n in range(5)] == [f"10.0.0.{n}" for n in (2, 3, 4, 5, 6)]
    assert str(HostLocal.gateway(ipam.networks[0])) == "10.0.0.1/29"
    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/29"):
        ipam.allocate("one-too-many")


def test_what_was_released_last_is_used_last(tmp_path: Path) -> None:
    ipam = HostLocal(str(tmp_path), ["10.0.0.0/29"])
    first(ipam, "a")
    first(ipam, "b")
    ipam.release("a")
    assert [first(ipam, f"c{n}") for n in range(4)] == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


def test_the_same_again_for_the_same_owner_and_after_a_restart(tmp_path: Path) -> None:
    given = HostLocal(str(tmp_path), ["10.0.0.0/24", "fd00::/64"]).allocate("a")
    assert [str(interface) for interface in given] == ["10.0.0.2/24", "fd00::2/64"]
    again = HostLocal(str(tmp_path), ["10.0.0.0/24", "fd00::/64"])
    assert again.allocate("a") == given
    assert [str(interface.ip) for interface in again.allocate("b")] == ["10.0.0.3", "fd00::3"]
    assert again.owners() == {"10.0.0.2": "a", "fd00::2": "a", "10.0.0.3": "b", "fd00::3": "b"}


def test_all_families_or_none(tmp_path: Path) -> None:
    ipam = HostLocal(str(tmp_path), ["10.0.0.0/24", "fd00::/126"])
    ipam.allocate("a")
    ipam.allocate("b")
    with pytest.raises(Exhausted):
        ipam.allocate("c")
    assert "c" not in ipam.owners().values()


def test_two_writers_never_get_one_address(tmp_path: Path) -> None:
    given: list[str] = []

    def take(number: int) -> None:
        ipam = HostLocal(str(tmp_path), ["10.0.0.0/24"])
        given.extend(first(ipam, f"{number}-{n}") for n in range(25))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) == 100
