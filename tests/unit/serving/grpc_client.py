"""Run by the tests with an interpreter that has grpcio: ``grpc_client.py PORT CASE``. Raises what is wrong."""

import asyncio
import sys

import grpc

ADDRESS, METHOD = f"127.0.0.1:{sys.argv[1]}", "/test.Echo/Echo"
OPTIONS = [("grpc.max_receive_message_length", -1)]


def unary(channel):
    call = channel.unary_unary(METHOD)
    answer, told = call.with_call(b"hello", metadata=[("x-request-id", "abc-1")], timeout=60)
    assert answer == b"hello"
    assert dict(told.initial_metadata())["x-request-id"] == "abc-1"
    for size in (0, 1, 16_379, 16_380, 70_000, 5_000_000):
        assert call(bytes(size)) == bytes(size)
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert call(b"zip" * 1000, compression=compression) == b"zip" * 1000


def streams(channel):
    call = channel.stream_stream(METHOD)
    bodies = [b"%d" % i for i in range(2000)]
    assert list(call(iter(bodies))) == bodies
    sizes = [0, 100_000, 1_000_000, 10]
    assert [len(body) for body in call(bytes(size) for size in sizes)] == sizes
    assert channel.stream_unary(METHOD)(iter([b"one"])) == b"one"
    assert list(channel.unary_stream(METHOD)(b"one")) == [b"one"]


def failed(call, body=b"x", **options):
    try:
        call(body, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("it succeeded")


def errors(channel):
    call = channel.unary_unary(METHOD)
    assert failed(channel.unary_unary("/nobody/Knows")).code() is grpc.StatusCode.UNIMPLEMENTED
    assert failed(channel.unary_unary("/test.Echo/Bug")).code() is grpc.StatusCode.INTERNAL
    error = failed(call, b"refuse not_found")
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "näin\n100%")
    assert failed(call, bytes(9_000_000)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call(b"still here") == b"still here"


def cancel(channel):
    for _ in range(20):
        call = channel.stream_stream(METHOD)
        answers = call(iter(lambda: b"again", None))
        assert next(answers) == b"again"
        answers.cancel()
    assert channel.unary_unary(METHOD)(b"still here") == b"still here"


def health(channel):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "m", "test.Echo", "grpc.health.v1.Health"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
    assert failed(stub.Check, health_pb2.HealthCheckRequest(service="no")).code() is grpc.StatusCode.NOT_FOUND
    for service, status in (("", serving), ("m", serving), ("no", health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)):
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=service))
        assert next(watched).status == status
        watched.cancel()


def many(channel):
    call = channel.unary_unary(METHOD)
    futures = [call.future(b"%d" % i) for i in range(1000)]
    assert [future.result() for future in futures] == [b"%d" % i for i in range(1000)]


def asynchronous(_):
    async def main():
        async with grpc.aio.insecure_channel(ADDRESS) as channel:
            call = channel.unary_unary(METHOD)
            answers = await asyncio.gather(*[call(b"%d" % i) for i in range(1000)])
            assert answers == [b"%d" % i for i in range(1000)]
            stream = channel.stream_stream(METHOD)()
            for body in (b"a", b"b"):
                await stream.write(body)
                assert await stream.read() == body
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK

    asyncio.run(main())


with grpc.insecure_channel(ADDRESS, options=OPTIONS) as opened:
    globals()[sys.argv[2]](opened)
