"""A real local HTTP server that speaks the OpenAI format as vLLM does, before any engine, with faults on order."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from debate_rl.engines.request import Completion, Message, Request, Sampling
from debate_rl.engines.server.engine import ServerEngine
from debate_rl.engines.server.settings import ServerSettings

FAULTS = ("rate limit", "server error", "hang", "truncated", "cut json", "dropped")


ENGINE_PARTS = ("resolve", "budget", "keep_tokens", "ends")


def server_engine(url, **options):
    """A server engine at a url: its parts and its settings by keyword."""
    parts = {name: options.pop(name) for name in ENGINE_PARTS if name in options}
    return ServerEngine(ServerSettings(url=url, **options), **parts)


class WireServer:
    """Serves the texts of an engine, and the probabilities of a model where there is one.

    Args:
        engine: writes the texts.
        served: names of models and adapters.
        faults: what befalls each chat request in turn, None for nothing; afterwards all is well.
        scores: chat messages to {token: log-probability} of the first token.
        adapters: load adapters by folder on the model of this name, whose engine answers with them; None takes their
            names alone, False refuses.
        ids: send token ids where they are asked for (`return_token_ids`); None answers 400 to who asks.
        prompt: chat messages to the token ids that it says it has read; None takes `tokenize`.
        tokenize: text or messages to token ids; token_logprobs: ids to log-probabilities of all but the first.
    """

    def __init__(self, engine, served=("m",), faults=(), scores=None, tokenize=None, token_logprobs=None, most_n=64,
                 adapters=None, ids=False, prompt=None):  # fmt: skip
        self.engine, self.served, self.most_n = engine, list(served), most_n
        self.scores, self.tokenize, self.token_logprobs = scores, tokenize, token_logprobs
        self.faults = iter(faults)
        self.adapters, self.ids, self.prompt = adapters, ids, prompt or tokenize
        self.tries, self.bodies, self.loaded, self.unloaded = Counter(), [], {}, []
        self.completed = Counter()
        """Bodies whose answer was sent whole: what an API would charge for."""
        self.tokens = 0
        self.up = True
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply({"data": [{"id": name} for name in outer.served]})

            def do_POST(self):
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                outer.post(self, self.path, json.loads(raw))

            def reply(self, value, status=200, cut=0, whole=True, **headers):
                data = json.dumps(value).encode()
                self.send_response(status)
                if whole:
                    self.send_header("Content-Length", str(len(data)))
                else:
                    self.send_header("Connection", "close")
                for name, content in headers.items():
                    self.send_header(name.replace("_", "-"), content)
                self.end_headers()
                self.wfile.write(data[: len(data) - cut])
                if cut or not whole:
                    self.close_connection = True

            def log_message(self, *words):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def leave(self):
        """Be gone, from within an answer."""
        self.up = False
        self.http.socket.close()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def post(self, handler, path, body):
        with self.lock:
            self.bodies.append((path, body))
        if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            handler.reply(*self._adapter(path, body["lora_name"], body.get("lora_path")))
            return
        if path == "/tokenize":
            handler.reply(*self._tokens(body))
            return
        if body["model"] not in self.served:
            handler.reply({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
            return
        if path == "/v1/completions":
            (token,) = body["allowed_token_ids"]
            found = self.token_logprobs([*body["prompt"], token])[-1]
            usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
            logprobs = {"tokens": [f"token_id:{token}"], "token_logprobs": [found]}
            handler.reply({"choices": [{"logprobs": logprobs}], "usage": usage})
            return
        self._chat(handler, body)

    def _adapter(self, path, name, folder):
        """Load or unload, as vLLM does and refuses to."""
        if self.adapters is False:
            return {"error": {"message": "LoRA is not enabled"}}, 400
        if path.endswith("unload_lora_adapter"):
            if name not in self.loaded:
                return {"error": {"message": f"The lora adapter '{name}' cannot be found."}}, 404
            self.served.remove(name)
            self.unloaded.append(name)
            del self.loaded[name]
            return (f"Success: LoRA adapter '{name}' removed successfully.",)
        if self.adapters and not Path(folder, "adapter_config.json").is_file():
            return {"error": {"message": f"No adapter found for {folder}"}}, 404
        self.loaded[name] = folder
        self.served.append(name)
        return (f"Success: LoRA adapter '{name}' added successfully.",)

    def _tokens(self, body):
        if self.tokenize is None:
            return {"error": {"message": "Not Found"}}, 404
        return ({"tokens": list(self.tokenize(body.get("messages") or body["prompt"]))},)

    def _chat(self, handler, body):
        if self.ids is None and "return_token_ids" in body:
            handler.reply({"error": {"message": "Unrecognized request argument supplied: return_token_ids"}}, 400)
            return
        if body.get("n", 1) > self.most_n:
            handler.reply({"error": {"message": "only one choice is supported, n must be 1"}}, 400)
            return
        with self.lock:
            self.tries[json.dumps(body, sort_keys=True)] += 1
            fault = next(self.faults, None)
        if fault == "rate limit":
            handler.reply({"error": {"message": "slow down"}}, 429, Retry_After="0")
            return
        if isinstance(fault, tuple):
            handler.reply({"error": {"message": "slow down"}}, 429, Retry_After=fault[1])
            return
        if fault == "server error":
            handler.reply({"error": {"message": "oops"}}, 500)
            return
        if fault == "dropped":
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        if fault == "hang":
            time.sleep(1.0)
            return
        answer = self._scored(body) if body.get("logprobs") else self._written(body)
        if not self.up:
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        if fault in ("truncated", "cut json"):
            handler.reply(answer, cut=20, whole=fault == "truncated")
            return
        with self.lock:
            self.completed[json.dumps(body, sort_keys=True)] += 1
            self.tokens += sum(answer["usage"].values())
        handler.reply(answer)

    def _written(self, body):
        sampling = Sampling(
            max_new_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"],
            stop=tuple(body.get("stop", ())),
        )  # fmt: skip
        messages = tuple(Message(**message) for message in body["messages"])
        adapter = self.loaded.get(body["model"]) if self.adapters else None
        model = self.adapters if adapter else body["model"]
        asked = [
            Request(messages=messages, model=model, adapter=adapter, sampling=sampling, seed=body["seed"] + index)
            for index in range(body.get("n", 1))
        ]
        with self.lock:  # engines answer one call at a time
            texts = [text for text in self.engine.generate(asked) if isinstance(text, Completion)]
        told = bool(self.ids and body.get("return_token_ids"))
        choices = [
            {"message": {"role": "assistant", "content": text.text}, "finish_reason": text.finish,
             **({"token_ids": text.tokens} if told else {})}
            for text in texts
        ]  # fmt: skip
        usage = {"prompt_tokens": texts[0].prompt_tokens, "completion_tokens": sum(text.new_tokens for text in texts)}
        read = {"prompt_token_ids": list(self.prompt(body["messages"]))} if told else {}
        return {"choices": choices, "usage": usage, **read}

    def _scored(self, body):
        with self.lock:
            found = self.scores(body["messages"])
        top = sorted(found.items(), key=lambda one: -one[1])[: body["top_logprobs"]]
        content = [{"token": top[0][0], "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}]
        words = sum(len(message["content"].split()) for message in body["messages"])
        words = len(self.tokenize(body["messages"])) if self.tokenize else words
        usage = {"prompt_tokens": words, "completion_tokens": 1}
        return {"choices": [{"message": {"content": top[0][0]}, "logprobs": {"content": content}}], "usage": usage}
