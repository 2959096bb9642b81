"""HTTP/2, the server's side: bytes in, requests out, answers back, flow control both ways (RFC 9113, RFC 7541).

`connection.Connection` is the protocol of one connection; `stream.Stream` one request's way back; `fields` what a
request's header fields say; `hpack` and `huffman` their compression; `frames` the numbers. What a request means is
its `Handler`'s business: gRPC for `berg etcd`, the chain for the API server.

Own code and not the `h2` library, because that takes 180 µs of CPU time for a request and its answer, more than all
the rest of a GET, where this takes 15; and 120 ms to be imported.
"""
