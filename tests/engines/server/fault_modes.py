"""Ways in which a server goes wrong, as functions of (handler, the right answer, whether it holds log-probabilities).

Each sends something else than the right answer, or nothing. One that gives False does not concern this kind of answer.
"""

import copy
import gzip
import json
import socket
import struct
import time
from email.utils import formatdate


def send(handler, data, status=200, length=None, **headers):
    """One HTTP answer; `length` is what its header says."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def close(handler, reset=False):
    """End the connection, in an orderly way or by a reset."""
    if reset:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Copies of the socket would hold it open, and no reset would be sent.
        handler.rfile.close()
        handler.wfile.close()
        handler.connection.close()
    else:
        handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def status(code, body=None, **headers):
    error = {"error": {"message": f"fault {code}"}} if body is None else body
    return lambda handler, answer, scored: send(handler, error, code, **headers)


def body(data, **headers):
    return lambda handler, answer, scored: send(handler, data, **headers)


def raw(data, reset=False):
    def go(handler, answer, scored):
        handler.wfile.write(data)
        handler.wfile.flush()
        close(handler, reset)

    return go


def changed(change, only=None):
    """The right answer with a change; `only` speeches (False) or log-probabilities (True)."""

    def go(handler, answer, scored):
        if only is not None and scored != only:
            return False
        other = copy.deepcopy(answer)
        given = change(other)
        return send(handler, other if given is None else given)

    return go


def cut(keep):
    """The body ends early, and so does the connection."""

    def go(handler, answer, scored):
        data = json.dumps(answer).encode()
        send(handler, data[: int(len(data) * keep)], length=len(data))
        close(handler)

    return go


def short(handler, answer, scored):
    """The header says less than there is."""
    data = json.dumps(answer).encode()
    send(handler, data, length=len(data) - 9)
    close(handler)


def chunks(handler, answer, scored):
    """A chunked body whose last chunk never comes."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"20\r\n" + json.dumps(answer).encode()[:32] + b"\r\n")
    close(handler)


def bad_chunks(handler, answer, scored):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"xyz\r\nno chunk\r\n")
    close(handler)


def hang(handler, answer, scored):
    handler.server.gone.wait(20)
    close(handler)


def hang_in_body(handler, answer, scored):
    data = json.dumps(answer).encode()
    send(handler, data[:9], length=len(data))
    handler.server.gone.wait(20)
    close(handler)


def trickle(handler, answer, scored, status=200):
    """A byte now and then, without end: no single wait is long."""
    send(handler, b"{", status, length=10**6)
    until = time.monotonic() + 20
    try:
        while time.monotonic() < until and not handler.server.gone.wait(0.02):
            handler.wfile.write(b" ")
    except OSError:
        pass  # the client has given up
    close(handler)


def trickle_503(handler, answer, scored):
    """The same of a busy server, whose body nobody wants."""
    trickle(handler, answer, scored, status=503)


def wait_until_tomorrow(handler, answer, scored):
    send(handler, {}, 503, Retry_After=formatdate(time.time() + 86400, usegmt=True))


def zipped(data):
    return lambda handler, answer, scored: send(handler, data, Content_Encoding="gzip")


def half_zipped(handler, answer, scored):
    packed = gzip.compress(json.dumps(answer).encode())
    send(handler, packed[: len(packed) // 2], Content_Encoding="gzip")


def message(answer):
    return answer["choices"][0]["message"]


def first(answer):
    return answer["choices"][0]


def tops(answer):
    return answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]


def put(where, name, value):
    """Sets a field of what `where` finds in an answer."""

    def change(answer):
        where(answer)[name] = value

    return change


def no(where, name):
    def change(answer):
        del where(answer)[name]

    return change


def whole(answer):
    return answer


STATUSES = (
    400,
    401,
    402,
    403,
    404,
    405,
    408,
    409,
    410,
    413,
    418,
    422,
    425,
    429,
    451,
    500,
    501,
    502,
    503,
    504,
    520,
    529,
)

MODES = {
    **{f"status {code}": status(code) for code in STATUSES},
    "status 500 without a body": status(500, b""),
    "status 503 with a page": status(503, b"<html><h1>Service Unavailable</h1></html>", Content_Type="text/html"),
    "status 500, context deadline exceeded": status(500, {"error": {"message": "context deadline exceeded"}}),
    "status 500 with an error that is a list": status(500, {"error": ["gone"]}),
    "status 500 that is no UTF-8": status(500, b"\xff\xfe\xfa"),
    "status 500 with a lone surrogate": status(500, b'{"error": {"message": "\\ud800"}}'),
    "status 999": status(999),
    "status 204": status(204, b""),
    "status 429, retry after 0.01": status(429, Retry_After="0.01"),
    "status 429, retry after half a second": status(429, Retry_After="0.5"),
    "status 503, retry after a date to come": wait_until_tomorrow,
    "status 429, retry after -5": status(429, Retry_After="-5"),
    "status 429, retry after soon": status(429, Retry_After="soon"),
    "status 429, retry after a date gone by": status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "status 429, retry after no date": status(429, Retry_After="Wed, 99 Oct 2099 99:28:00 GMT"),
    "status 429, retry after NaN": status(429, Retry_After="nan"),
    "status 429, retry after a day": status(429, Retry_After="86400"),
    "status 503, retry after 1e400": status(503, Retry_After="1e400"),
    "status 429, no quota": status(429, {"error": {"message": "no quota", "code": "insufficient_quota"}}),
    "redirect to nowhere": status(307, Location="http://127.0.0.1:9/"),
    "redirect to itself": status(308, Location="/v1/chat/completions"),
    "a page": body(b"<html>proxy</html>", Content_Type="text/html"),
    "an empty body": body(b""),
    "null": body(b"null"),
    "a number": body(b"1"),
    "a list": body([1, 2]),
    "an empty object": body({}),
    "an error with status 200": body({"error": {"message": "overloaded", "code": 503}}),
    "JSON that is not closed": body(b'{"choices": [{"message": '),
    "JSON nested too deeply": body(b'{"a": ' + b"[" * 200_000),
    "JSON with a number of 5,000 digits": body(b'{"a": ' + b"9" * 5000 + b"}"),
    "JSON that is no UTF-8": body(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "a stream of events": body(b'data: {"choices": []}\n\ndata: [DONE]\n\n', Content_Type="text/event-stream"),
    "cut in the body": cut(0.5),
    "cut before the body": cut(0),
    "a content length too small": short,
    "a content length too large": lambda handler, answer, scored: (
        send(handler, answer, length=10**6),
        close(handler),
    ),
    "a content length that is none": raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "no content length, cut": raw(b'HTTP/1.1 200 OK\r\n\r\n{"choices": ['),
    "chunks that end early": chunks,
    "chunks that are none": bad_chunks,
    "closed before the headers": raw(b""),
    "reset before the headers": raw(b"", reset=True),
    "closed in the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "reset after the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", reset=True),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "headers without end": raw(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 300 + b"\r\n{}"),
    "a header line too long": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n{}"),
    "hangs before the headers": hang,
    "hangs in the body": hang_in_body,
    "slow bytes without end": trickle,
    "status 503 with slow bytes without end": trickle_503,
    "gzip that is none": zipped(b"no gzip"),
    "gzip that is cut": half_zipped,
    "no choices": changed(no(whole, "choices")),
    "empty choices": changed(put(whole, "choices", [])),
    "choices that are an object": changed(put(whole, "choices", {"0": {}})),
    "choices that are null": changed(put(whole, "choices", None)),
    "a choice that is a text": changed(put(whole, "choices", ["text"])),
    "an index that is none": changed(put(first, "index", "first"), only=False),
    "no message": changed(no(first, "message"), only=False),
    "a message that is null": changed(put(first, "message", None), only=False),
    "null text": changed(put(message, "content", None), only=False),
    "a text that is a number": changed(put(message, "content", 7), only=False),
    "a text that is a list": changed(put(message, "content", [{"type": "text"}]), only=False),
    "no finish reason": changed(no(first, "finish_reason"), only=False),
    "a finish reason that is an error": changed(put(first, "finish_reason", "error"), only=False),
    "a finish reason that is a list": changed(put(first, "finish_reason", []), only=False),
    "usage that is a list": changed(put(whole, "usage", [1])),
    "usage with infinity": changed(put(whole, "usage", {"prompt_tokens": float("inf")})),
    "usage below 0": changed(put(whole, "usage", {"prompt_tokens": -7, "completion_tokens": 1})),
    "no log-probabilities": changed(no(first, "logprobs"), only=True),
    "log-probabilities that are null": changed(put(first, "logprobs", None), only=True),
    "log-probabilities of no token": changed(put(first, "logprobs", {"content": []}), only=True),
    "log-probabilities that are a list": changed(put(first, "logprobs", [1]), only=True),
    "no likeliest tokens": changed(lambda answer: tops(answer).clear(), only=True),
    "a log-probability that is NaN": changed(lambda answer: tops(answer)[0].update(logprob=float("nan")), only=True),
    "a log-probability above 0": changed(lambda answer: tops(answer)[0].update(logprob=5.0), only=True),
    "a log-probability that is null": changed(lambda answer: tops(answer)[0].update(logprob=None), only=True),
    "a log-probability that is a text": changed(lambda answer: tops(answer)[0].update(logprob="low"), only=True),
    "log-probabilities refused": lambda handler, answer, scored: (
        send(handler, {"error": {"message": "logprobs is not supported"}}, 400) if scored else False
    ),
}

ENDLESS = (
    "hangs before the headers",
    "hangs in the body",
    "slow bytes without end",
    "status 503 with slow bytes without end",
)
"""Modes that only a time-out ends."""
