"""The same etcdctl commands against Berg and against a real etcd: what they print must be the same.

Ids, times and sizes differ by nature and are masked; the errors of a newer server than Debian's are listed where
they differ.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from berg.etcd.server import Config, EtcdServer

from .conftest import Etcd, free_port

pytestmark = pytest.mark.skipif(
    shutil.which("etcd") is None or shutil.which("etcdctl") is None, reason="needs etcd and etcdctl"
)


@pytest.fixture
async def berg(tmp_path: Path) -> AsyncIterator[str]:
    server = EtcdServer(Config(data_dir=str(tmp_path / "berg"), listen_client_urls=["http://127.0.0.1:0"]))
    await server.start()
    yield f"http://127.0.0.1:{server.ports[0]}"
    await server.stop()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[str]:
    real = Etcd(tmp_path, "default", free_port(), free_port(), "", "--enable-v2")
    real.start()
    run(real.endpoint, "endpoint health", api="3", patience_s=20)
    yield real.endpoint
    real.kill()


def run(endpoint: str, command: str, *, api: str = "3", stdin: str = "", patience_s: float = 0) -> str:
    """What etcdctl prints, both streams, masked."""
    args = ["etcdctl", "--endpoints", endpoint, *re.findall(r"'[^']*'|\S+", command)]
    args = [a.strip("'") for a in args]
    environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": api}
    for _ in range(1 + int(patience_s * 10)):
        done = subprocess.run(args, input=stdin, capture_output=True, text=True, env=environment, timeout=20)
        if done.returncode == 0:
            break
    return f"[{done.returncode}] " + mask(done.stdout + done.stderr)


def mask(text: str) -> str:
    text = re.sub(r'^\{"level".*\n', "", text, flags=re.M)
    text = re.sub(r"http://127\.0\.0\.1:\d+|127\.0\.0\.1:\d+", "URL", text)
    text = re.sub(r"\b[0-9a-f]{14,16}\b", "ID", text)
    text = re.sub(r"\b\d{16,20}\b", "NUMBER", text)
    text = re.sub(r"^stty: .*\n", "", text, flags=re.M)
    text = re.sub(r"remaining\(\d+s\)", "remaining", text)
    text = re.sub(r"took = \S+", "took", text)
    text = re.sub(r'"(raft_index|raft_term|db_size\w*|hash)":\d+', r'"\1":N', text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME", text)
    return re.sub(r"raft_term.:\d+", "raft_term", text)


async def compare(berg: str, etcd: str, commands: str, api: str = "3") -> None:
    lease: dict[str, str] = {}
    for line in commands.strip().splitlines():
        command, _, stdin = line.strip().partition(" <<< ")
        stdin = stdin.replace("\\n", "\n")
        outputs = []
        for endpoint in (berg, etcd):
            mine = command.replace("LEASE", lease.get(endpoint, ""))
            outputs.append(await asyncio.to_thread(run, endpoint, mine, api=api, stdin=stdin))
            if command == "lease grant":
                lease[endpoint] = outputs[-1]
        assert outputs[0] == outputs[1], command


async def test_keys(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        """
        put a 1
        put a 2 --prev-kv
        put b 1
        put c 1
        get a
        get a -w json
        get a z
        get --prefix '' --keys-only
        get --prefix '' --limit 2 -w json
        get --prefix '' --sort-by MODIFY --order DESCEND
        get --from-key b
        get a --rev 2
        get a --rev 99
        get none -w json
        put none --ignore-value
        put a x --lease 123
        del b --prev-kv
        del none
        del --prefix '' --prev-kv -w json
        get --prefix ''
        """,
    )


async def test_transactions(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        r"""
        put a 1
        txn <<< mod("a") > "0"\n\nput b 2\nget a\n\nput c 3\n\n
        txn <<< value("a") = "7"\n\nput b 2\n\nget a\ndel a\n\n
        txn <<< create("a") = "0"\n\n\n\nput a 1\nput a 2\n\n
        txn -w json <<< version("x") = "0"\n\nput x 1\n\nget x\n\n
        get --prefix ''
        """,
    )


async def test_compaction_and_upkeep(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        """
        put a 1
        put a 2
        put a 3
        compaction 3
        compaction 3
        compaction 99
        get a --rev 2
        get a --rev 3
        defrag
        alarm list
        alarm disarm
        endpoint health
        move-leader 1234
        member remove 1234
        member promote 1234
        """,
    )


async def test_leases(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        """
        lease list
        lease grant 100
        lease timetolive 1234abcd
        lease revoke 1234abcd
        lease keep-alive --once 1234abcd
        lease grant 99999999999
        """,
    )


async def test_users_and_roles(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        """
        auth enable
        user add root:secret
        auth enable
        user add root:secret
        role add root
        user grant-role root root
        role add reader
        role add reader
        role grant-permission reader read /r/ /s
        role grant-permission reader readwrite k
        role grant-permission none read k
        role get reader
        role list
        role get none
        user add alice:pw
        user add bob --no-password
        user grant-role alice reader
        user grant-role alice none
        user get alice
        user list
        user get none
        auth enable
        get /r/a
        --user alice:wrong get /r/a
        --user alice:pw get /r/a
        --user alice:pw put /r/a 1
        --user alice:pw put k 1
        --user alice:pw get k
        --user alice:pw get --prefix ''
        --user alice:pw get /r/ /r9
        --user alice:pw txn <<< value("k") = "1"\\n\\nput k 2\\n\\nput z 3\\n\\n
        --user alice:pw user list
        --user alice:pw user get alice
        --user alice:pw compaction 1
        --user root:secret put /r/a 1
        --user root:secret user delete root
        --user root:secret role revoke-permission reader k
        --user root:secret role revoke-permission reader k
        --user alice:pw get k
        --user root:secret user revoke-role alice reader
        --user root:secret user revoke-role alice reader
        --user alice:pw get /r/a
        --user root:secret role delete reader
        --user root:secret user delete alice
        --user alice:pw get /r/a
        --user root:secret auth disable
        get /r/a
        """,
    )


async def test_the_second_api(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        """
        set /a 1
        get /a
        -o extended get /a
        -o json get /a
        mk /a 2
        mk /b 2
        mkdir /d
        mkdir /d
        set /d 1
        set /d/x 1
        set /d/y 2
        set /d/sub/z 3
        set /d/_hidden 4
        set /a/below 1
        ls --sort /
        ls --recursive --sort -p /
        ls --sort /d
        get /none
        update /a 3
        update /none 3
        set --swap-with-value 3 /a 4
        set --swap-with-value 3 /a 5
        set --swap-with-index 999 /a 5
        rm --with-value 9 /a
        rm /d
        rmdir /d
        rm --recursive /d
        rm /none
        set --ttl 100 /t 1
        -o extended get /a
        rm /a
        setdir /e
        updatedir /e --ttl 60
        rm /
        ls --sort /
        """,
        api="2",
    )


async def test_users_and_roles_of_the_second_api(berg: str, etcd: str) -> None:
    await compare(
        berg,
        etcd,
        r"""
        set /b 1
        user add root <<< rootpw\n
        user add alice <<< pw\n
        role add reader
        role add reader
        role grant --path /r/* --read reader
        role grant --path /rw/* --readwrite reader
        role get reader
        user grant --roles reader alice
        user grant --roles reader alice
        auth enable
        -u root:wrong user list
        role list
        -u root:rootpw role revoke --path /* --readwrite guest
        get /b
        -u alice:pw get /b
        -u root:rootpw set /r/a 1
        -u alice:pw get /r/a
        -u alice:pw set /r/a 2
        -u alice:wrong get /r/a
        -u alice:pw rm --recursive /
        -u root:rootpw user passwd alice <<< new\n
        -u alice:new get /r/a
        -u root:rootpw user remove root
        -u root:rootpw user remove alice
        auth disable
        -u root:rootpw auth disable
        get /b
        """,
        api="2",
    )
