"""Between the store's own requests and answers and etcd's messages, both ways: the client sends and reads what the
server reads and sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.interface import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRequest,
    DeleteResponse,
    Event,
    EventType,
    InvalidRequest,
    KeyValue,
    Op,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)

Message = Any
Response = RangeResponse | PutResponse | DeleteResponse | TxnResponse
Header = Callable[[int], Message]
"""Makes the header of an answer at a revision."""

_UNION = {
    CompareTarget.VERSION: "version",
    CompareTarget.CREATE: "create_revision",
    CompareTarget.MOD: "mod_revision",
    CompareTarget.VALUE: "value",
    CompareTarget.LEASE: "lease",
}


# -- keys and events


def kv_to(kv: KeyValue) -> Message:
    return pb.KeyValue(
        key=kv.key,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        value=kv.value,
        lease=kv.lease,
    )


def kv_from(m: Message) -> KeyValue:
    return KeyValue(m.key, m.value, m.create_revision, m.mod_revision, m.version, m.lease)


def event_to(event: Event) -> Message:
    out = pb.Event(type=int(event.type), kv=kv_to(event.kv))  # type: ignore[arg-type]
    if event.prev_kv is not None:
        out.prev_kv.CopyFrom(kv_to(event.prev_kv))
    return out


def event_from(m: Message) -> Event:
    return Event(EventType(m.type), kv_from(m.kv), kv_from(m.prev_kv) if m.HasField("prev_kv") else None)


# -- requests


def range_to(r: RangeRequest) -> Message:
    return pb.RangeRequest(
        key=r.key,
        range_end=r.range_end or b"",
        limit=r.limit,
        revision=r.revision,
        sort_order=int(r.sort_order),  # type: ignore[arg-type]
        sort_target=int(r.sort_target),  # type: ignore[arg-type]
        keys_only=r.keys_only,
        count_only=r.count_only,
        min_mod_revision=r.min_mod_revision,
        max_mod_revision=r.max_mod_revision,
        min_create_revision=r.min_create_revision,
        max_create_revision=r.max_create_revision,
    )


def range_from(m: Message) -> RangeRequest:
    if not 0 <= m.sort_order <= 2 or not 0 <= m.sort_target <= 4:
        raise InvalidRequest("etcdserver: invalid sort option")
    return RangeRequest(
        m.key,
        m.range_end or None,
        m.limit,
        m.revision,
        SortOrder(m.sort_order),
        SortTarget(m.sort_target),
        m.keys_only,
        m.count_only,
        m.min_mod_revision,
        m.max_mod_revision,
        m.min_create_revision,
        m.max_create_revision,
    )


def put_to(r: PutRequest) -> Message:
    return pb.PutRequest(
        key=r.key,
        value=r.value,
        lease=r.lease,
        prev_kv=r.prev_kv,
        ignore_value=r.ignore_value,
        ignore_lease=r.ignore_lease,
    )


def put_from(m: Message) -> PutRequest:
    return PutRequest(m.key, m.value, m.lease, m.prev_kv, m.ignore_value, m.ignore_lease)


def delete_to(r: DeleteRequest) -> Message:
    return pb.DeleteRangeRequest(key=r.key, range_end=r.range_end or b"", prev_kv=r.prev_kv)


def delete_from(m: Message) -> DeleteRequest:
    return DeleteRequest(m.key, m.range_end or None, m.prev_kv)


def compare_to(c: Compare) -> Message:
    out = pb.Compare(result=int(c.result), target=int(c.target), key=c.key, range_end=c.range_end or b"")  # type: ignore[arg-type]
    setattr(out, _UNION[c.target], c.value)
    return out


def compare_from(m: Message) -> Compare:
    target = CompareTarget(m.target)
    return Compare(m.key, target, CompareResult(m.result), getattr(m, _UNION[target]), m.range_end or None)


def txn_to(r: TxnRequest) -> Message:
    return pb.TxnRequest(
        compare=map(compare_to, r.compare), success=map(_op_to, r.success), failure=map(_op_to, r.failure)
    )


def txn_from(m: Message) -> TxnRequest:
    return TxnRequest(tuple(map(compare_from, m.compare)), tuple(_ops_from(m.success)), tuple(_ops_from(m.failure)))


def _op_to(op: Op) -> Message:
    if isinstance(op, RangeRequest):
        return pb.RequestOp(request_range=range_to(op))
    if isinstance(op, PutRequest):
        return pb.RequestOp(request_put=put_to(op))
    if isinstance(op, DeleteRequest):
        return pb.RequestOp(request_delete_range=delete_to(op))
    return pb.RequestOp(request_txn=txn_to(op))


def _ops_from(ops: Iterable[Message]) -> Iterable[Op]:
    for op in ops:
        which = op.WhichOneof("request")
        if which == "request_range":
            yield range_from(op.request_range)
        elif which == "request_put":
            yield put_from(op.request_put)
        elif which == "request_delete_range":
            yield delete_from(op.request_delete_range)
        elif which == "request_txn":
            yield txn_from(op.request_txn)
        else:
            raise InvalidRequest("etcdserver: key not found")


def watch_to(r: WatchRequest) -> Message:
    filters = [0] * r.no_put + [1] * r.no_delete
    return pb.WatchCreateRequest(
        key=r.key,
        range_end=r.range_end or b"",
        start_revision=r.start_revision,
        progress_notify=r.progress_notify,
        filters=filters,  # type: ignore[arg-type]
        prev_kv=r.prev_kv,
    )


# -- answers


def range_answer_to(r: RangeResponse, header: Header) -> Message:
    return pb.RangeResponse(header=header(r.revision), kvs=map(kv_to, r.kvs), more=r.more, count=r.count)


def put_answer_to(r: PutResponse, header: Header) -> Message:
    out = pb.PutResponse(header=header(r.revision))
    if r.prev_kv is not None:
        out.prev_kv.CopyFrom(kv_to(r.prev_kv))
    return out


def delete_answer_to(r: DeleteResponse, header: Header) -> Message:
    return pb.DeleteRangeResponse(header=header(r.revision), deleted=r.deleted, prev_kvs=map(kv_to, r.prev_kvs))


def txn_answer_to(r: TxnResponse, header: Header) -> Message:
    out = pb.TxnResponse(header=header(r.revision), succeeded=r.succeeded)
    for response in r.responses:
        op = out.responses.add()
        if isinstance(response, RangeResponse):
            op.response_range.CopyFrom(range_answer_to(response, _revision_only))
        elif isinstance(response, PutResponse):
            op.response_put.CopyFrom(put_answer_to(response, _revision_only))
        elif isinstance(response, DeleteResponse):
            op.response_delete_range.CopyFrom(delete_answer_to(response, _revision_only))
        else:
            op.response_txn.CopyFrom(txn_answer_to(response, _nested))
    return out


def _nested(revision: int) -> Message:
    """etcd's transactions within a transaction do not say their revision; what is in them does."""
    return pb.ResponseHeader()


def _revision_only(revision: int) -> Message:
    return pb.ResponseHeader(revision=revision)


def range_answer_from(m: Message) -> RangeResponse:
    return RangeResponse(m.header.revision, [kv_from(kv) for kv in m.kvs], m.count, m.more)


def put_answer_from(m: Message) -> PutResponse:
    return PutResponse(m.header.revision, kv_from(m.prev_kv) if m.HasField("prev_kv") else None)


def delete_answer_from(m: Message) -> DeleteResponse:
    return DeleteResponse(m.header.revision, m.deleted, tuple(kv_from(kv) for kv in m.prev_kvs))


def txn_answer_from(m: Message) -> TxnResponse:
    revision = m.header.revision
    return TxnResponse(revision, m.succeeded, [_response_from(op) for op in m.responses])


def _response_from(op: Message) -> Response:
    which = op.WhichOneof("response")
    if which == "response_range":
        return range_answer_from(op.response_range)
    if which == "response_put":
        return put_answer_from(op.response_put)
    if which == "response_delete_range":
        return delete_answer_from(op.response_delete_range)
    return txn_answer_from(op.response_txn)
