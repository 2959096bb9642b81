"""What strangers send to the JSON gateway and to gRPC's methods: an answer or an RpcError, at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berg.etcd.auth import AuthService
from berg.etcd.cluster import ClusterService
from berg.etcd.concurrency import Concurrency
from berg.etcd.gateway import _message, _parse
from berg.etcd.health import Health
from berg.etcd.kv import KV
from berg.etcd.lease import LeaseService
from berg.etcd.maintenance import Maintenance
from berg.etcd.member import Member
from berg.etcd.rpc import Call, Method, RpcError
from berg.etcd.tokens import open_tokens
from berg.etcd.users import Users
from berg.storage.embedded.engine import EmbeddedStore
from berg.storage.etcd.api import rpc_pb2
from berg.storage.interface import StoreError

_UNSAFE = (
    "Snapshot",
    "MoveLeader",
    "AuthEnable",
    "AuthDisable",
    "Downgrade",
    "MemberAdd",
    "MemberRemove",
    "HashKV",
    "Campaign",
    "Lock",
)
"""what ends or locks the server that the others are asked of, or waits by right"""
SCALARS = st.none() | st.booleans() | st.integers(-2, 1 << 64) | st.sampled_from(["", "YQ==", "a", "-1", "9" * 30, "!"])
_RANGE = "key range_end revision limit sort_order sort_target serializable keys_only count_only max_mod_revision"
_PUT = "value lease prev_kv ignore_value min_create_revision mod_revision"
_TXN = "compare success failure target result version request_put request_range request_delete_range request_txn"
_OTHER = "ID TTL physical name password user role perm keys"
NAMES = st.sampled_from(f"{_RANGE} {_PUT} {_TXN} {_OTHER}".split())
BODIES = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
    ),
    max_size=5,
)


@pytest.fixture
async def methods() -> AsyncIterator[list[Method]]:
    store = EmbeddedStore(None)
    await store.start()
    member = Member(store, "default")
    await member.load()
    users = Users(store, open_tokens("simple", store.clock, 300.0), by_certificate=False, bcrypt_cost=4)
    users.load()
    services = (KV, LeaseService, ClusterService, Maintenance, AuthService, Concurrency, Health)
    found = [m for service in services for m in service(member, users).methods()]
    yield [m for m in found if m.unary is not None and not m.path.endswith(_UNSAFE)]
    await store.close()


async def ask(method: Method, message: Any) -> None:
    assert method.unary is not None
    with contextlib.suppress(RpcError, StoreError):
        async with asyncio.timeout(30):
            await method.unary(Call(), message)


@pytest.mark.parametrize("seed", range(4))
async def test_messages(methods: list[Method], seed: int) -> None:
    examples: list[tuple[int, dict[str, Any]]] = []

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(methods) - 1), BODIES)
    def collect(which: int, body: dict[str, Any]) -> None:
        examples.append((which + seed, body))

    collect()
    for which, body in examples:
        method = methods[which % len(methods)]
        try:
            message = _message(method, body)
        except RpcError:
            continue
        await ask(method, message)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60) | BODIES.map(lambda b: json.dumps(b).encode()))
def test_bodies(data: bytes) -> None:
    method = Method("/x", rpc_pb2.TxnRequest, rpc_pb2.TxnResponse)
    with contextlib.suppress(RpcError):
        _parse(method, data)


def test_deep_bodies_are_refused() -> None:
    method = Method("/x", rpc_pb2.TxnRequest, rpc_pb2.TxnResponse)
    for deep in (b"[" * 100_000, b'{"success":[{"requestTxn":' * 3000 + b"{}" + b"}]}" * 3000):
        with pytest.raises(RpcError):
            _parse(method, deep)
