"""grpc.health.v1.Health, which probes and load balancers ask. Source: gRPC health checking protocol."""

from __future__ import annotations

from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.etcd.users import Users
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.errors import NOT_FOUND


class Health:
    def __init__(self, member: Member, users: Users) -> None:
        del member, users  # it serves whoever asks, for as long as it answers at all

    def methods(self) -> list[Method]:
        return [Method("/grpc.health.v1.Health/Check", pb.HealthCheckRequest, pb.HealthCheckResponse, self.check)]

    async def check(self, call: Call, m: Message) -> Message:
        if m.service:
            raise RpcError(NOT_FOUND, "unknown service")
        return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
