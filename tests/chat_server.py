"""A server by URL whose template can be broken, whose answers are noisy as a sampled model's are, and that tells of its
prompts as much as it is told to.

Its tokens are words and marks. A turn is ``<role> words </>``; a prompt begins with ``<s>`` and ends with
``<assistant>``. The right answer is the word after ``say``, wherever the rendered prompt holds it; each prompt is
answered rightly with probability ``right``, by a lot of this server's own.
"""

from __future__ import annotations

import json
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Break = Literal["", "double", "lost", "default", "stripped", "no system", "other", "in chat only"]
Tells = Literal["ids", "tokenize", "counts", "cached counts", "nothing"]
Turns = list[dict[str, str]]


class ChatServer:
    """Use as a context manager. ``can`` names the abilities beyond plain answers."""

    def __init__(
        self, broken: Break = "", tells: Tells = "ids", right: float = 1.0, seed: int = 0, can: tuple[str, ...] = ()
    ) -> None:
        self.broken, self.tells, self.right, self.seed, self.can = broken, tells, right, seed, can
        self.words: dict[str, int] = {}
        self.lock = threading.Lock()
        self.answers = 0

    def __enter__(self) -> ChatServer:
        outer = self

        class Handler(_Handler):
            of = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, body: dict[str, Any]) -> str:
        """The prompt of a request. Who ``can`` "think" and is told not to finds the thinking at its end already."""
        if "messages" not in body:
            return str(body["prompt"])
        thinks = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
        return self.render(body["messages"]) + ("" if thinks or "think" not in self.can else "<think></think>")

    def render(self, turns: Turns) -> str:
        """The prompt, as broken as it is meant to be."""
        broken = self.broken
        if broken == "no system":
            turns = [t for t in turns if t["role"] != "system"]
        if broken == "default" and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": "You are a helpful thing."}, *turns]
        if broken == "stripped":
            turns = [t | {"content": t["content"].strip()} for t in turns]
        if broken == "other":
            return "".join(f"[{t['role']}]{t['content']}\n" for t in turns)
        body = "".join(f"<{t['role']}>{t['content']}</>" for t in turns)
        return {"double": "<s><s>", "lost": ""}.get(broken, "<s>") + body + "<assistant>"

    def tokens(self, text: str) -> tuple[list[int], list[str]]:
        pieces = re.findall(r"<[^>]*>|\s|[^\s<]+|<", text)
        ids = [int.from_bytes(piece.encode()[:6].ljust(6, b"_"), "big") % 99991 + len(piece) for piece in pieces]
        return ids, pieces

    def answer(self, prompt: str, body: dict[str, Any]) -> str:
        found = re.findall(r"say (\w+)", prompt)
        word = found[-1] if found else "nothing"
        salt: Any = 0
        if body.get("temperature"):
            salt = body.get("seed") if "seeds" in self.can else random.random()
        lots = random.Random(f"{self.seed} {prompt} {salt}")
        if body.get("temperature"):
            return " ".join(lots.choice("abcdefgh") for _ in range(8))
        return word if lots.random() < self.right else "wrong"


class _Handler(BaseHTTPRequestHandler):
    of: ChatServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            return self._send(200, {"data": [{"id": "m", "max_model_len": 4096, "quantization": "awq"}]})
        if self.path == "/metrics" and "metrics" in self.of.can:
            return self._send(200, "# HELP x y\n# TYPE x counter\nx 1\n")
        return self._send(404, {"error": {"message": "not here"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        of = self.of
        if self.path == "/tokenize" and of.tells == "tokenize":
            ids, pieces = of.tokens(of.asked(body))
            return self._send(200, {"tokens": ids, "token_strs": pieces, "count": len(ids)})
        if self.path not in ("/v1/chat/completions", "/v1/completions"):
            return self._send(404, {"error": {"message": "not here"}})
        chat = self.path == "/v1/chat/completions"
        prompt = of.asked(body)
        with of.lock:
            of.answers += 1
            times = of.words[prompt] = of.words.get(prompt, 0) + 1
        ids, _ = of.tokens(prompt)
        text = of.answer(prompt, body)
        choice: dict[str, Any] = {"finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        said: dict[str, Any] = {"model": "m", "choices": [choice]}
        if of.tells != "nothing":
            count = len(ids) if of.tells != "cached counts" or times == 1 else 1
            said["usage"] = {"prompt_tokens": count, "completion_tokens": 1}
        if of.tells == "ids" and body.get("return_token_ids"):
            said["prompt_token_ids"] = ids
        return self._able(body, said, choice)

    def _able(self, body: dict[str, Any], said: dict[str, Any], choice: dict[str, Any]) -> None:
        can = self.of.can
        if "strict" in can and (unknown := body.keys() & {"return_token_ids", "tools", "response_format"}):
            return self._send(400, {"error": {"message": f"unknown {sorted(unknown)}"}})
        if "no tools" in can and "tools" in body:
            return self._send(400, {"error": {"message": "tools need --enable-auto-tool-choice"}})
        if "no further" in can and (unknown := sorted(body.keys() & {"top_k", "min_p", "chat_template_kwargs"})):
            return self._send(400, {"error": {"message": f"Unrecognized request argument supplied: {unknown[0]}"}})
        if "no heat" in can and body.get("temperature", 0) > 2:
            return self._send(400, {"error": {"message": f"temperature must be in [0, 2], got {body['temperature']}."}})
        if body.get("logprobs") is True and "logprobs" in can:
            choice["logprobs"] = {"content": [{"token": "w", "logprob": -0.1}]}
        if body.get("echo") and "echo" in can:
            choice["text"] = body["prompt"] + " x"
            choice["logprobs"] = {"token_logprobs": [None, -1.0, -2.0, -1.0], "text_offset": [0, 3, 5, 9]}
        if "response_format" in body and "schema" in can:
            schema = body["response_format"]["json_schema"]["schema"]["properties"]
            choice["message"]["content"] = json.dumps({name: of["enum"][0] for name, of in schema.items()})
        if "tools" in body and "tools" in can:
            call = {"name": body["tools"][0]["function"]["name"], "arguments": '{"bird": "gull"}'}
            choice["message"]["tool_calls"] = [{"type": "function", "function": call}]
        if body.get("stream") and "stream" in can:
            event = json.dumps({"choices": [{"delta": {"content": "w"}, "finish_reason": "stop"}]})
            return self._send(200, f"data: {event}\n\ndata: [DONE]\n\n", "text/event-stream")
        return self._send(200, said)

    def _send(self, status: int, value: Any, form: str = "application/json") -> None:
        data = (value if isinstance(value, str) else json.dumps(value)).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {form}\r\nContent-Length: {len(data)}\r\n\r\n"
        self.wfile.write(head.encode() + data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
