"""What clients do wrong, and what must not come of it: the server goes on, others get their whole texts, blocks come back."""

import json
import random
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from server import STORIES, Server, run

KILLED = 1000
LONG = {"model": STORIES, "prompt": "Once upon a time", "max_tokens": 400, "temperature": 0, "ignore_eos": True}

server = Server()


def connect(receive_buffer=None):
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", server.port))
    return sock


def head(length, path="/v1/completions", more=""):
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


def ask(sock, body, path="/v1/completions", more=""):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    sock.sendall(head(len(body), path, more) + body)


def read_all(sock):
    """What comes until the other side closes."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def answer(raw, no_more=False):
    """Status and body of what the server says to these bytes; a status of 0 if it waits for more, or hangs up. With
    `no_more` it is told that nothing follows."""
    data = b""
    with connect() as sock:
        sock.settimeout(3)
        try:
            sock.sendall(raw)
            if no_more:
                sock.shutdown(socket.SHUT_WR)
            data = read_all(sock)
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
    if not data:
        return 0, b""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def text_of(stream):
    """The text of a stream that must be whole."""
    pieces, ended = [], False
    for line in stream.split(b"\n"):
        line = line.strip()
        if line == b"data: [DONE]":
            ended = True
        elif line.startswith(b"data:"):
            event = json.loads(line[5:])
            assert "error" not in event, event
            pieces += [choice["text"] for choice in event["choices"]]
    assert ended, "a stream without its end"
    return "".join(pieces)


def stream(prompt="Once upon a time", tokens=400):
    """A whole streamed text."""
    with connect() as sock:
        ask(sock, LONG | {"prompt": prompt, "max_tokens": tokens, "stream": True}, more="Connection: close\r\n")
        data = read_all(sock)
    assert data.startswith(b"HTTP/1.1 200"), data[:500]
    return text_of(data)


class Others:
    """Honest requests beside a fault: each must get the text that it gets alone."""

    PROMPTS = ["Once upon a time", "Lily had a red", "The old dog", "One day, Tom"]

    def __init__(self):
        self.alone = {prompt: stream(prompt) for prompt in self.PROMPTS}
        self.over = threading.Event()
        self.done = 0
        self.wrong = []

    def work(self, prompt):
        while not self.over.is_set():
            try:
                text = stream(prompt)
            except Exception as error:  # noqa: BLE001: any is one too many
                self.wrong.append(repr(error))
                return
            if text != self.alone[prompt]:
                self.wrong.append(f"{prompt!r} got another text")
            self.done += 1

    def __enter__(self):
        self.threads = [threading.Thread(target=self.work, args=(prompt,)) for prompt in self.PROMPTS]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong[:3]
        assert self.done >= len(self.PROMPTS), f"only {self.done} other requests were answered"


def kill(i):
    """A client that goes in the middle, by a reset or by a close."""
    rng = random.Random(i)
    with connect() as sock:
        if rng.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        body = LONG | {"prompt": f"The {i} dogs", "stream": rng.random() < 0.8, "n": rng.choice([1, 1, 2])}
        ask(sock, body)
        if body["stream"]:
            for _ in range(rng.randrange(4)):
                sock.recv(rng.randrange(1, 4000))
        else:
            time.sleep(rng.random() / 50)


def clients_that_go_in_mid_stream():
    before = server.metric("thermite_requests_cancelled_total")
    with Others(), ThreadPoolExecutor(24) as pool:
        list(pool.map(kill, range(KILLED)))
    server.wait_until_idle()
    cancelled = server.metric("thermite_requests_cancelled_total") - before
    assert cancelled > KILLED / 4, f"only {cancelled} of {KILLED} were ended early"


def clients_that_read_slowly():
    socks = [connect(receive_buffer=2048) for _ in range(8)]
    with Others():
        for sock in socks:
            ask(sock, LONG | {"stream": True, "n": 16}, more="Connection: close\r\n")
        time.sleep(2)
        for sock in socks[::2]:
            sock.recv(16)
    # those that read on get everything, and the others can go
    body = b"".join(iter(lambda: socks[0].recv(65536), b""))
    assert body.rstrip().endswith(b"0") and b"[DONE]" in body
    for sock in socks:
        sock.close()
    server.wait_until_idle()


def half_sent_heads_and_bodies():
    held = []
    for i in range(150):
        sock = connect()
        whole = head(1000) + b'{"model": "' + STORIES.encode() + b'", "prompt": "'
        sock.sendall(whole[: random.Random(i).randrange(1, len(whole))])
        held.append(sock)
    with Others():
        time.sleep(1)
    for sock in held[:75]:
        sock.close()
    # the server gives up on those that stay, and says so or hangs up
    began = time.monotonic()
    for sock in held[75:]:
        data = b""
        try:
            data = read_all(sock)
        except ConnectionResetError:
            pass
        assert not data or data.split()[1] in (b"400", b"408"), data[:200]
        sock.close()
    assert time.monotonic() - began < 90
    server.wait_until_idle()


def malformed_requests():
    def json_body(text, path="/v1/completions"):
        text = text if isinstance(text, bytes) else text.encode()
        return head(len(text), path, "Connection: close\r\n") + text

    bodies = [
        "", "{", "[]", "null", "1", '"x"', "{}", '{"prompt": 1}', '{"prompt": {}}', '{"prompt": []}', '{"prompt": [[]]}',
        '{"prompt": [-1]}', '{"prompt": [99999999]}', '{"prompt": [1.5]}', '{"prompt": "x", "prompt": "y", "a": }',
        '{"prompt": "x", "max_tokens": -1}', '{"prompt": "x", "max_tokens": 1e999}', '{"prompt": "x", "temperature": NaN}',
        '{"prompt": "x", "temperature": 1e300}', '{"prompt": "x", "n": 99999999999999999999}', '{"prompt": "x", "stop": [1]}',
        '{"prompt": "x", "stop": ""}', '{"prompt": "x", "seed": "y"}', '{"prompt": "x", "logit_bias": {"a": 1}}',
        '{"prompt": "x", "stream": "yes"}', '{"prompt": "x", "model": 7}', '{"prompt": "x", "model": "\\ud800"}',
        '{"prompt": "\\ud800"}', "[" * 100000, '{"a":' * 100000, b'{"prompt": "\xff\xfe"}', b"\x00\x01\x02", b"\xef\xbb\xbf{}",
    ]  # fmt: skip
    chats = [
        '{"messages": "x"}', '{"messages": [{}]}', '{"messages": [{"role": "user"}]}', '{"messages": [[]]}',
        '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
        '{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}',
        '{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema"}}',
        '{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": '
        '{"name": "x", "schema": {"$ref": "#/nowhere"}}}}',
    ]
    lines = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    raw = [
        b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET / HTTP/9.9\r\n\r\n", b"GET /%ff%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (lines + "Content-Length: -1\r\n\r\n").encode(),
        (lines + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef").encode(),
        (lines + "Transfer-Encoding: chunked\r\n\r\nzz\r\n").encode(),
        (lines + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc").encode(),
        (lines + "X: " + "y" * 100000 + "\r\n\r\n").encode(), (lines + "X: y\r\n" * 5000 + "\r\n").encode(),
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        # too long: the server need not read all of it before it says so and hangs up
        json_body('{"prompt": "' + "x" * (5 << 20) + '"}'),
    ]  # fmt: skip
    cases = [json_body(body) for body in bodies] + [json_body(body, "/v1/chat/completions") for body in chats] + raw
    for case in cases:
        status, body = answer(case)
        assert status < 500, f"{status} for {case[:300]!r}: {body[:300]!r}"
        if case not in raw:
            assert 400 <= status, f"{status} for {case[:300]!r}: {body[:300]!r}"
            assert json.loads(body)["error"]["message"], case[:300]
    server.wait_until_idle()
    assert stream(tokens=5)


def random_bytes():
    rng = random.Random(1)
    good = head(40) + b'{"prompt": "Once", "max_tokens": 1}     '
    for _ in range(2000):
        case = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(case))
            case[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        status, body = answer(bytes(case), no_more=True)
        assert status < 500, f"{status} for {bytes(case)!r}: {body!r}"
    server.wait_until_idle()


def the_end_under_load():
    """SIGTERM: what runs is finished, what is new is refused, the process ends well."""
    expected = {tokens: stream(tokens=tokens) for tokens in (300, 400, 450)}
    started = threading.Barrier(49)

    def one(i):
        tokens = list(expected)[i % 3]
        with connect() as sock:
            ask(sock, LONG | {"max_tokens": tokens, "stream": True}, more="Connection: close\r\n")
            data = sock.recv(65536)
            started.wait(60)
            data += read_all(sock)
        return text_of(data) == expected[tokens]

    with ThreadPoolExecutor(48) as pool:
        texts = [pool.submit(one, i) for i in range(48)]
        started.wait(60)
        server.terminate()
        whole = sum(text.result() for text in texts)
    assert whole == 48, f"{whole} of 48 texts were whole"
    assert server.process.wait(timeout=30) == 0
    try:
        connect().close()
        raise AssertionError("the server still takes connections")
    except ConnectionRefusedError:
        pass


if __name__ == "__main__":
    with server:
        failed = run([
            malformed_requests, random_bytes, clients_that_go_in_mid_stream, clients_that_read_slowly,
            half_sent_heads_and_bodies, the_end_under_load,
        ])
    sys.exit(failed)
