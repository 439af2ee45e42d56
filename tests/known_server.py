"""A server whose delays are known: ``python known_server.py`` prints its port, and serves until its input closes;
:func:`known_server` starts it in a process of its own, so that it does not share an interpreter with who measures.

Each prompt is a JSON object that says what to do with it: ``ttft`` and ``tpot`` in seconds from the request's arrival,
``tokens``, ``stall`` (seconds for which the whole server stands still first), and ``fault``. Times are kept by absolute
deadlines, so that delays do not add up.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LATE = [0.0]
"""Seconds by which the latest piece since the last question was late by this server's own fault."""

COUNTS = {"prompt": 0, "generated": 0, "queries": 0, "hits": 0}
WORDS: dict[str, Any] = {"tpot": 0.0, "ttft": 0.0, "fault": "", "stall": 0.0, "overhead": 0, "per_word": 1}


@contextmanager
def known_server(**wish: Any) -> Iterator[str]:
    """Its address, while it runs; ``wish`` is for prompts that wish for nothing."""
    command = [sys.executable, __file__, json.dumps(wish)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def event(value: Any) -> bytes:
    data = value if isinstance(value, str) else json.dumps(value)
    return f"data: {data}\n\n".encode()


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def serve(self) -> None:
        try:
            while await self.request():
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writer.close()

    async def request(self) -> bool:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        sizes = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")]
        body = await self.reader.readexactly(sizes[0]) if sizes else b""
        path = lines[0].split()[1]
        if path == "/v1/models":
            return await self.plain(200, json.dumps({"data": [{"id": "known"}]}))
        if path == "/late":
            late, LATE[0] = LATE[0], 0.0
            return await self.plain(200, json.dumps(late))
        if path == "/metrics":
            return await self.plain(200, metrics(), "text/plain; version=0.0.4")
        if path in ("/v1/completions", "/v1/chat/completions"):
            return await self.answer(json.loads(body), time.perf_counter(), path.endswith("chat/completions"))
        return await self.plain(404, "not here")

    async def plain(self, status: int, text: str, form: str = "application/json") -> bool:
        data = text.encode()
        self.writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {form}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        )
        await self.writer.drain()
        return True

    async def piece(self, data: bytes) -> None:
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def answer(self, body: dict[str, Any], at: float, chat: bool) -> bool:
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        try:
            wish = {"tokens": body["max_tokens"]} | WORDS | json.loads(prompt)
        except ValueError:
            wish = {"tokens": body["max_tokens"]} | WORDS
        if wish["fault"] in ("429", "500", "404"):
            return await self.plain(int(wish["fault"]), json.dumps({"error": {"message": "on purpose"}}))
        if wish["fault"] == "no stream":
            return await self.plain(200, json.dumps({"choices": [{"text": "all at once"}]}))
        if wish["fault"] == "strict" and "ignore_eos" in body:
            return await self.plain(400, json.dumps({"error": {"message": "unknown field ignore_eos"}}))
        if wish["fault"] == "exit":
            os._exit(1)
        if wish["stall"]:
            time.sleep(wish["stall"])  # nobody is served meanwhile
            at = time.perf_counter()
        COUNTS["prompt"] += len(prompt.split())
        COUNTS["queries"] += len(prompt.split())
        COUNTS["hits"] += len(prompt.split()) // 4
        COUNTS["generated"] += wish["tokens"]
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        return await self.tokens(wish, prompt, at, chat, body["model"])

    async def tokens(self, wish: dict[str, Any], prompt: str, at: float, chat: bool, model: str) -> bool:
        fault, count = wish["fault"], wish["tokens"]
        named = {"model": "another" if fault == "other model" else model}
        for i in range(count):
            due = at + wish["ttft"] + i * wish["tpot"]
            await asyncio.sleep(due - time.perf_counter())
            LATE[0] = max(LATE[0], time.perf_counter() - due)
            if i == 2 and fault == "die":
                return False
            if i == 2 and fault == "hang":
                await asyncio.sleep(3600)
            if i == 2 and fault == "garbage":
                await self.piece(b"<html>oops</html>\n\n")
            if i == 2 and fault == "bad json":
                await self.piece(b'data: {"choices": [\n\n')
            if i == 2 and fault == "error":
                await self.piece(event({"error": {"message": "out of blocks", "code": 500}}))
            if fault == "comments":
                await self.piece(b": still here\n\n")
            word = {"delta": {"content": f"w{i} "}} if chat else {"text": f"w{i} "}
            last = "length" if i == count - 1 and fault != "no finish" else None
            await self.piece(event(named | {"choices": [word | {"index": 0, "finish_reason": last}]}))
        length = wish["overhead"] + wish["per_word"] * len(prompt.split())
        usage = {"prompt_tokens": length, "completion_tokens": count}
        if fault != "no usage":
            await self.piece(event(named | {"choices": [], "usage": usage}))
        if fault != "no done":
            await self.piece(event("[DONE]"))
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        return True


def metrics() -> str:
    return (
        "# HELP vllm:prefix_cache_queries_total asked\n# TYPE vllm:prefix_cache_queries_total counter\n"
        f'vllm:prefix_cache_queries_total{{engine="0",model_name="known"}} {COUNTS["queries"]:.1f}\n'
        f'vllm:prefix_cache_hits_total{{engine="0",model_name="known"}} {COUNTS["hits"]:.1f}\n'
        f'vllm:num_preemptions_total{{engine="0"}} 3\nvllm:prompt_tokens_total{{engine="0"}} {COUNTS["prompt"]}\n'
        f'vllm:generation_tokens_total{{engine="0"}} {COUNTS["generated"]}\n'
        'vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="101"} 1.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="known"} 0.25\n'
    )


async def main() -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # what still hangs on purpose is not waited for


if __name__ == "__main__":
    WORDS |= json.loads(sys.argv[1])
    asyncio.run(main())
